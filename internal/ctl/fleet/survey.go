// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/trousseau-io/trousseau/internal/ctl/finding"
	"github.com/trousseau-io/trousseau/internal/ctl/text"
	"github.com/trousseau-io/trousseau/internal/endpoint"
)

// Options say which nodes to ask.
type Options struct {
	Nodes []Node
	// Find returns the nodes instead, at each survey, because pods are replaced.
	Find func(context.Context) (Members, error)
	// Timeout is the time limit for one node; 0 means 5 s.
	Timeout time.Duration
	// Endpoint is a plugin on this host to ask as well; nil for none.
	Endpoint *endpoint.Endpoint
}

// Members are the nodes of one cluster, as its API names them.
type Members struct {
	Nodes []Node
	// APIServers are all of the cluster's; none if it does not publish them.
	APIServers []APIServer
	// Typed says that an operator has named the nodes, so that the API servers can only
	// be counted.
	Typed bool
}

// APIServer is an API server that the cluster publishes.
type APIServer struct {
	Address string `json:"address"`
	// Node is the node of its plugin; "" if it has none, or if the nodes are typed.
	Node string `json:"node,omitempty"`
}

// Report is the result of a survey.
type Report struct {
	Time   time.Time `json:"time"`
	Nodes  []Answer  `json:"nodes"`
	KeyIDs []KeyID   `json:"keyIDs"`
	Plugin *Plugin   `json:"plugin,omitempty"`
	// APIServers are known if the nodes were found through the cluster's API.
	APIServers []APIServer       `json:"apiServers,omitempty"`
	Findings   []finding.Finding `json:"-"`
	// Err is why Options.Find did not return nodes.
	Err error `json:"-"`

	typed bool
}

// OK means that all nodes answer, are healthy and agree on key_id, that the plugin is
// one of them, and that each API server has one.
func (r Report) OK() bool { return !finding.Problem(r.Findings) }

// Answer is the result for one node: its State, or why there is none.
type Answer struct {
	Node        string `json:"node"`
	State       *State `json:"state,omitempty"`
	Unreachable string `json:"unreachable,omitempty"`
}

// Health is healthy, degraded or unreachable.
func (a Answer) Health() string {
	switch {
	case a.State == nil:
		return "unreachable"
	case a.State.Healthy:
		return "healthy"
	}
	return "degraded"
}

// KeyID is a key_id and the nodes that encrypt under it.
type KeyID struct {
	Key
	Nodes []string `json:"nodes"`
}

// parallel is how many nodes are asked at the same time.
const parallel = 16

// Survey asks all nodes, and returns their answers in the same order. It returns
// early if ctx is done.
func Survey(ctx context.Context, o Options) Report {
	if o.Timeout == 0 {
		o.Timeout = 5 * time.Second
	}
	var r Report
	var asking sync.WaitGroup
	if o.Endpoint != nil {
		asking.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, o.Timeout)
			defer cancel()
			p := AskPlugin(ctx, *o.Endpoint)
			r.Plugin = &p
		})
	}
	if o.Find != nil {
		ctx, cancel := context.WithTimeout(ctx, o.Timeout)
		found, err := o.Find(ctx)
		cancel()
		o.Nodes, r.APIServers, r.typed, r.Err = found.Nodes, found.APIServers, found.Typed, err
	}
	r.Nodes = make([]Answer, len(o.Nodes))
	turns := make(chan struct{}, parallel)
	for i, n := range o.Nodes {
		asking.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			r.Nodes[i] = ask(ctx, n, o.Timeout)
		})
	}
	asking.Wait()
	r.Time = time.Now().UTC().Truncate(time.Millisecond)
	r.Judge()
	switch {
	case r.Err != nil:
		r.Findings = append(r.Findings, finding.Finding{ID: "nodes-not-found", Severity: finding.Error, Text: text.Capital(r.Err.Error()) + "."})
	case o.Find != nil && len(r.APIServers) == 0:
		r.Findings = append(r.Findings, unpublished)
	}
	return r
}

func ask(ctx context.Context, n Node, timeout time.Duration) Answer {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	s, err := n.Fetch(ctx)
	if err != nil {
		return Answer{Node: n.String(), Unreachable: err.Error()}
	}
	return Answer{Node: n.String(), State: &s}
}

// keyIDs groups the nodes by key_id, the largest group first.
func keyIDs(answers []Answer) []KeyID {
	all := []KeyID{}
	for _, a := range answers {
		if a.State == nil || a.State.Key.Hash == "" {
			continue
		}
		i := slices.IndexFunc(all, func(k KeyID) bool { return k.Hash == a.State.Key.Hash })
		if i < 0 {
			i = len(all)
			all = append(all, KeyID{Key: a.State.Key})
		}
		all[i].Nodes = append(all[i].Nodes, a.Node)
	}
	slices.SortStableFunc(all, func(a, b KeyID) int { return cmp.Compare(len(b.Nodes), len(a.Nodes)) })
	return all
}
