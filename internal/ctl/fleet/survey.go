// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/trousseau-io/trousseau/internal/endpoint"
)

// Options say which nodes to ask.
type Options struct {
	Nodes []Node
	// Timeout is the time limit for one node; 0 means 5 s.
	Timeout time.Duration
	// Endpoint is a plugin on this host to ask as well; nil for none.
	Endpoint *endpoint.Endpoint
}

// Report is the result of a survey.
type Report struct {
	Time time.Time `json:"time"`
	// OK means that all nodes answer, are healthy and agree on key_id, and that
	// the plugin is one of them.
	OK     bool     `json:"ok"`
	Nodes  []Answer `json:"nodes"`
	KeyIDs []KeyID  `json:"keyIDs"`
	Plugin *Plugin  `json:"plugin,omitempty"`
	// Problems are sentences about the nodes as a whole.
	Problems []string `json:"problems,omitempty"`
}

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
	r := Report{Nodes: make([]Answer, len(o.Nodes))}
	var asking sync.WaitGroup
	turns := make(chan struct{}, parallel)
	for i, n := range o.Nodes {
		asking.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			r.Nodes[i] = ask(ctx, n, o.Timeout)
		})
	}
	if o.Endpoint != nil {
		asking.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, o.Timeout)
			defer cancel()
			p := AskPlugin(ctx, *o.Endpoint)
			r.Plugin = &p
		})
	}
	asking.Wait()
	r.Time = time.Now().UTC().Truncate(time.Millisecond)
	r.judge()
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

// judge compares the answers.
func (r *Report) judge() {
	r.KeyIDs = keyIDs(r.Nodes)
	if len(r.KeyIDs) > 1 {
		r.Problems = append(r.Problems, disagreement(r.KeyIDs))
	}
	if r.Plugin != nil {
		if problem := r.pluginProblem(*r.Plugin); problem != "" {
			r.Problems = append(r.Problems, problem)
		}
	}
	r.OK = len(r.Problems) == 0 && !slices.ContainsFunc(r.Nodes, func(a Answer) bool { return a.Health() != "healthy" })
}

// pluginProblem returns what is wrong with the plugin on the socket; "" for nothing.
func (r *Report) pluginProblem(p Plugin) string {
	known := func(k KeyID) bool { return k.Hash == p.Hash }
	switch {
	case p.Error != "":
		return fmt.Sprintf("The plugin at %s does not answer Status: %s", p.Endpoint, p.Error)
	case p.Healthz != "ok":
		return fmt.Sprintf("The plugin at %s reports its health as %q, not ok.", p.Endpoint, p.Healthz)
	case len(r.KeyIDs) > 0 && !slices.ContainsFunc(r.KeyIDs, known):
		return fmt.Sprintf("The plugin at %s is none of these nodes: the hash of its key_id is %s. Check which process has the socket, and that you gave its --ops-addr.", p.Endpoint, p.Hash)
	}
	return ""
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

func disagreement(ids []KeyID) string {
	var each []string
	for _, k := range ids {
		each = append(each, fmt.Sprintf("%.19s… (%s version %d) on %s", k.Hash, k.Name, k.Version, strings.Join(k.Nodes, ", ")))
	}
	return fmt.Sprintf("The nodes disagree on key_id: %s. After a key rotation this lasts until each node has probed Vault again, about 30 seconds. Otherwise check that all nodes have the same configuration and use the same Vault.",
		strings.Join(each, "; "))
}
