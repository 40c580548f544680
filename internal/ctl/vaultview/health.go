// SPDX-License-Identifier: Apache-2.0

package vaultview

import (
	"context"
	"strings"
	"time"

	"github.com/trousseau-io/trousseau/internal/vault"
)

// Health is what a node reports about itself in sys/health.
type Health struct {
	Initialized *bool `json:"initialized"` // never nil
	Sealed      bool  `json:"sealed"`
	Standby     bool  `json:"standby"`
	// Removed means that it is no longer a member of its raft cluster.
	Removed bool `json:"removed_from_cluster"`
	// HAHealthy is false if a standby does not reach the active node; nil if not
	// reported.
	HAHealthy *bool `json:"ha_connection_healthy"`
	// PerformanceStandby answers reads and transit calls by itself.
	PerformanceStandby bool `json:"performance_standby"`
	// DRMode is "secondary" on a cluster that waits to replace its primary.
	DRMode     string  `json:"replication_dr_mode"`
	Version    string  `json:"version"`
	Enterprise *bool   `json:"enterprise"`      // OpenBao, and Vault before 1.16, have no such field
	Time       Seconds `json:"server_time_utc"` // since 1970, by the node's clock; 0 if not reported
	// Took is how long the call took.
	Took time.Duration `json:"-"`
}

// Product names the server. The first version of OpenBao was 2.0.
func (h Health) Product() string {
	switch {
	case h.Enterprise != nil && *h.Enterprise:
		return "Vault Enterprise"
	case h.Enterprise == nil && !strings.HasPrefix(h.Version, "1."):
		return "OpenBao"
	}
	return "Vault"
}

// Health asks the node for its state. It needs no token, and a node that is sealed
// or not initialized answers too.
func (v *View) Health(ctx context.Context) (h Health, err error) {
	const what = "asking for sys/health"
	began := time.Now()
	err = v.Query(ctx, vault.Query{What: what, Path: "sys/health", Anonymous: true}, &h)
	if err == nil && h.Initialized == nil {
		err = v.notVault(what)
	}
	h.Took = time.Since(began)
	return h, err
}
