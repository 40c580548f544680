// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"time"

	"github.com/trousseau-io/trousseau/internal/ctl/vaultview"
)

// maxSkew is how far two clocks may differ without a warning. Logins by JWT and
// certificates depend on them.
const maxSkew = 30 * time.Second

// health asks the node of Vault at an address for its state.
func (e *examination) health(ctx context.Context, v *vaultview.View) {
	address := v.Address()
	var h vaultview.Health
	e.check(ctx, "vault-health", address, func(ctx context.Context) (o outcome) {
		var err error
		if h, err = v.Health(ctx); err != nil {
			return fail("Check what listens at this address, and whether it requires a client certificate.", "%v", err)
		}
		return state(h)
	}, ground("vault-tls", address))
	e.check(ctx, "vault-clock", address, func(context.Context) outcome {
		if h.Time == 0 {
			return skip("the node does not say what time it is")
		}
		skew := time.Since(time.Unix(int64(h.Time), 0).Add(h.Took / 2)).Round(time.Second)
		if skew.Abs() > maxSkew {
			return warn("Synchronize both clocks with NTP.", "this host's clock differs from Vault's by %s", skew)
		}
		return ok("the clocks differ by at most %s", max(skew.Abs(), time.Second))
	}, ground("vault-health", address))
}

// state judges what a node says of itself. The order is that in which Vault chooses the
// status code (getSysHealth in http/sys_health.go), which is behind each of them.
func state(h vaultview.Health) outcome {
	seen := h.Product() + " " + h.Version
	switch {
	case !*h.Initialized: // 501
		return fail("Initialize it: vault operator init.", "%s is not initialized", seen)
	case h.Removed: // 530
		return fail("Remove this address from config.yaml; or empty the node's storage, and let it join again.", "%s was removed from its cluster, and serves nothing", seen)
	case h.Sealed: // 503
		return fail("Unseal it: vault operator unseal.", "%s is sealed", seen)
	case h.HAHealthy != nil && !*h.HAHealthy: // 474
		return fail("Check that an active node runs, and that this node reaches its cluster port (8201).", "%s is a standby that does not reach the active node, so it can forward no request", seen)
	case h.DRMode == "secondary": // 472
		return fail("Write the address of the primary cluster. This one serves only after it was promoted.", "%s is a disaster recovery secondary, which serves no requests", seen)
	case h.PerformanceStandby: // 473
		return ok("%s, unsealed, performance standby: it encrypts and decrypts by itself", seen)
	case h.Standby: // 429
		return ok("%s, unsealed, standby", seen)
	}
	return ok("%s, unsealed, active", seen)
}
