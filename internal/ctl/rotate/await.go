// SPDX-License-Identifier: Apache-2.0

package rotate

import (
	"context"
	"fmt"
	"time"

	"github.com/trousseau-io/trousseau/internal/ctl/fleet"
)

// await asks until all nodes serve the token, in one and the same survey. Else it
// returns why it has ended before.
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
		// The end of the time says nothing of the nodes, unless it was all of it.
		cut := bounded.Err() != nil && nodes[0].Node != ""
		for i, a := range answers {
			if cut {
				break
			}
			n := Node{Node: a.Node, Moved: serves(a, hash), Seconds: nodes[i].Seconds}
			if n.Moved {
				moved++
			} else {
				n.Reason = reason(a)
			}
			if n.Moved && !nodes[i].Moved {
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
			return nodes, "it was stopped before every node served the new token"
		case bounded.Err() != nil:
			return nodes, fmt.Sprintf("not every node serves the new token after %s", o.Timeout)
		}
	}
}

func serves(a fleet.Answer, hash string) bool {
	return a.State != nil && a.State.Token.AccessorHash == hash
}

// reason says why a node does not serve the new token, as far as it tells.
func reason(a fleet.Answer) string {
	switch {
	case a.State == nil:
		return a.Unreachable
	case a.State.Token.AccessorHash == "":
		return "it does not say which token it serves: is the token's policy without default, or no configuration in use?"
	case !a.State.Reload.InUse:
		return "its configuration is refused (" + a.State.Reload.Class + "): trousseau's log says why"
	}
	return "it serves another token: see whether its Vault Agent runs and renders"
}
