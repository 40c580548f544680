// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"sync/atomic"

	"github.com/hashicorp/vault-client-go"

	"github.com/trousseau-io/trousseau/internal/fault"
)

// node is one of the servers that [Config.Addresses] names.
type node struct {
	address string
	api     *vault.Client
}

// nodes are all servers of one Vault, never none, and whose turn it is. It is
// safe for concurrent use.
type nodes struct {
	all []node
	// turn only counts on: so a call that fails late, when its node may have
	// its turn again, is still known to be of an earlier one.
	turn atomic.Uint64
}

// current returns the node to ask now, and the number of its turn.
func (n *nodes) current() (node, uint64) {
	turn := n.turn.Load()
	return n.all[turn%uint64(len(n.all))], turn
}

// pass ends a turn, unless it has ended: a node that fails many calls at once
// is passed by once.
func (n *nodes) pass(turn uint64) { n.turn.CompareAndSwap(turn, turn+1) }

// speaksAgainstNode reports whether another node may answer where this one
// failed. Throttled does not: Vault counts rate limit quotas on each node, and
// going on to the next one would get around what the operator has set
// (developer.hashicorp.com/vault/docs/concepts/resource-quotas).
func speaksAgainstNode(c fault.Class) bool { return c.Transient() && c != fault.Throttled }
