// SPDX-License-Identifier: Apache-2.0

package testbed

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// leadership is a Vault node's own view of its role.
type leadership struct {
	IsActive  bool   `json:"is_self"`
	Leader    string `json:"leader_address"`
	Committed uint64 `json:"raft_committed_index"`
	Applied   uint64 `json:"raft_applied_index"`
}

// Follows is a condition for [Bed.Await]: the node is a standby that has applied
// everything the active node had committed when asked, so that it can take over. It
// also holds if the node has already taken over.
func (n *VaultNode) Follows(ctx context.Context) error {
	active, err := n.vault.Active(ctx)
	if err != nil {
		return err
	}
	var leader, own leadership
	if err := active.call(ctx, http.MethodGet, "sys/leader", nil, &leader); err != nil {
		return err
	}
	if err := n.call(ctx, http.MethodGet, "sys/leader", nil, &own); err != nil {
		return err
	}
	if own.IsActive {
		return nil // it has taken over already
	}
	if own.Leader != "https://"+active.Addr || own.Applied < leader.Committed {
		return fmt.Errorf("%s does not follow %s: %+v after %+v", n.Name, active.Name, own, leader)
	}
	return nil
}

// AwaitVoters waits until every node has a vote, so that the cluster survives the
// loss of any one of them. A new node gets its vote once it has been stable for a
// second; the default of ten seconds is shortened here.
func (v *Vault) AwaitVoters() {
	v.bed.t.Helper()
	v.CLI("operator", "raft", "autopilot", "set-config", "-server-stabilization-time=1s")
	v.bed.Await(vaultWithin, "a vote for every Vault node", func(context.Context) error {
		var answer struct {
			Data struct {
				Config struct {
					Servers []struct {
						Voter bool `json:"voter"`
					} `json:"servers"`
				} `json:"config"`
			} `json:"data"`
		}
		if err := json.Unmarshal([]byte(v.CLI("operator", "raft", "list-peers", "-format=json")), &answer); err != nil {
			return err
		}
		voters := 0
		for _, s := range answer.Data.Config.Servers {
			if s.Voter {
				voters++
			}
		}
		if voters != len(v.Nodes) {
			return fmt.Errorf("%d of %d nodes have a vote", voters, len(v.Nodes))
		}
		return nil
	})
}

// AwaitSuccessor waits until another node is active, and returns how long that took.
func (n *VaultNode) AwaitSuccessor() time.Duration {
	n.vault.bed.t.Helper()
	return n.vault.bed.Await(vaultWithin, "a Vault node that succeeds "+n.Name, func(ctx context.Context) error {
		active, err := n.vault.Active(ctx)
		if err == nil && active == n {
			err = fmt.Errorf("%s is still active", n.Name)
		}
		return err
	})
}
