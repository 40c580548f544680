// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"time"

	"github.com/trousseau-io/trousseau/internal/ctl/vaultview"
)

// maxSkew is how far clocks may be apart before somebody should know. Logins by
// JWT and certificates depend on them.
const maxSkew = 30 * time.Second

// health asks the Vault at an address how it is.
func (e *examination) health(ctx context.Context, address string) {
	var h vaultview.Health
	e.check(ctx, "vault-health", address, func(ctx context.Context) outcome {
		v, err := vaultview.New(&e.config.Vault, address)
		if err != nil {
			return fail("See vaultCACert, clientCert and clientKey.", "%s", reason(err))
		}
		if h, err = v.Health(ctx); err != nil {
			return fail("See what listens at this address, and whether it asks for a client certificate.", "sys/health: %s", reason(err))
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
			return ok("%s, unsealed, a standby", seen)
		}
		return ok("%s, unsealed, active", seen)
	}, ground("vault-tls", address))
	e.check(ctx, "vault-clock", address, func(context.Context) outcome {
		if h.Date.IsZero() {
			return skip("the answer has no date")
		}
		skew := time.Since(h.Date.Add(h.Took / 2)).Round(time.Second)
		if skew.Abs() > maxSkew {
			return warn("Let both hosts set their clocks by NTP.", "this host's clock differs from Vault's by %s", skew)
		}
		return ok("not more than %s apart", max(skew.Abs(), time.Second))
	}, ground("vault-health", address))
}
