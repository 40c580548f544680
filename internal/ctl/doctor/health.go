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
func (e *examination) health(ctx context.Context, address string) {
	var h vaultview.Health
	e.check(ctx, "vault-health", address, func(ctx context.Context) outcome {
		v, err := vaultview.Dial(&e.config.Vault, address)
		if err != nil {
			return fail(checkTLS, "%v", err)
		}
		e.views = append(e.views, v)
		if h, err = v.Health(ctx); err != nil {
			return fail("Check what listens at this address, and whether it requires a client certificate.", "%v", err)
		}
		seen := h.Product() + " " + h.Version
		switch {
		case !*h.Initialized:
			return fail("Initialize it: vault operator init.", "%s is not initialized", seen)
		case h.Sealed:
			return fail("Unseal it: vault operator unseal.", "%s is sealed", seen)
		}
		if e.vault == nil {
			e.vault = v
		}
		if h.Standby {
			return ok("%s, unsealed, standby", seen)
		}
		return ok("%s, unsealed, active", seen)
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
