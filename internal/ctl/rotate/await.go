// SPDX-License-Identifier: Apache-2.0

package rotate

import (
	"context"
	"fmt"
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
	nodes = make([]Node, len(o.Nodes))
	for {
		moved := 0
		answers := fleet.Survey(bounded, fleet.Options{Nodes: o.Nodes}).Nodes
		// A survey cut short by the timeout says nothing about the nodes. Use it only
		// if there is no other.
		cut := bounded.Err() != nil && nodes[0].Node != ""
		for i, a := range answers {
			if cut {
				break
			}
			n := Node{Node: a.Node, Moved: uses(a, hash), Serves: a.Health() == "healthy", Seconds: nodes[i].Seconds}
			if n.ready() {
				moved++
			} else {
				n.Reason = reason(a, n.Moved)
			}
			if n.ready() && !nodes[i].ready() {
				n.Seconds = time.Since(began).Round(100 * time.Millisecond).Seconds()
				if o.Moved != nil {
					o.Moved(n)
				}
			}
			nodes[i] = n
		}
		if moved == len(nodes) {
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
			return nodes, fmt.Sprintf("not all nodes serve with the new token after %s", o.Timeout)
		}
	}
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
