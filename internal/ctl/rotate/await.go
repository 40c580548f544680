// SPDX-License-Identifier: Apache-2.0

package rotate

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/trousseau-io/trousseau/internal/ctl/fleet"
)

// await repeats a survey until one of them shows that all nodes serve with the token.
// Otherwise it returns why it ended early.
func (o Options) await(ctx context.Context, hash string) (nodes []Node, stuck string) {
	began := time.Now()
	bounded, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	again := time.NewTicker(o.Interval)
	defer again.Stop()
	for {
		r := o.survey(bounded)
		// A survey that was cut short, or that found no nodes, says nothing about them. Use
		// it only if there is no other.
		if len(nodes) == 0 || bounded.Err() == nil && r.Err == nil {
			nodes, stuck = o.progress(nodes, r, hash, time.Since(began)), o.leftOut(r)
		}
		if stuck == "" && !slices.ContainsFunc(nodes, func(n Node) bool { return !n.ready() }) {
			return nodes, ""
		}
		select {
		case <-again.C:
		case <-bounded.Done():
		}
		switch {
		case ctx.Err() != nil:
			return nodes, "interrupted before all nodes served with the new token"
		case bounded.Err() != nil:
			return nodes, strings.TrimSuffix(fmt.Sprintf("not all nodes serve with the new token after %s: %s", o.Timeout, stuck), ": ")
		}
	}
}

// progress returns the state of the nodes after an earlier one.
func (o Options) progress(earlier []Node, r fleet.Report, hash string, after time.Duration) (nodes []Node) {
	known := make(map[string]Node)
	for _, n := range earlier {
		known[n.Node] = n
	}
	for _, a := range r.Nodes {
		n := Node{Node: a.Node, Moved: uses(a, hash), Serves: a.Health() == "healthy", Seconds: known[a.Node].Seconds}
		if !n.ready() {
			n.Reason = reason(a, n.Moved)
		} else if !known[a.Node].ready() {
			n.Seconds = after.Round(100 * time.Millisecond).Seconds()
			if o.Moved != nil {
				o.Moved(n)
			}
		}
		nodes = append(nodes, n)
	}
	return nodes
}

func (n Node) ready() bool { return n.Moved && n.Serves }

func uses(a fleet.Answer, hash string) bool {
	return a.State != nil && a.State.Token.AccessorHash == hash
}

// reason returns why a node does not serve with the new token, as far as it reports
// that.
func reason(a fleet.Answer, moved bool) string {
	switch {
	case a.State == nil:
		return a.Unreachable
	case moved:
		return "it uses the new token, but does not serve: " + strings.Join(a.State.Reasons, "; ")
	case a.State.Token.AccessorHash == "":
		return "it does not report which token it uses: check that it has a configuration, and that the token has Vault's default policy"
	case !a.State.Reload.InUse:
		return "its configuration is refused (" + a.State.Reload.Class + "): see trousseau's log"
	}
	return "it uses another token: check that its Vault Agent runs and renders config.yaml"
}
