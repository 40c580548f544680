// SPDX-License-Identifier: Apache-2.0

package live_test

import (
	"testing"
	"testing/synctest"

	"github.com/trousseau-io/trousseau/internal/daemon/live"
	"github.com/trousseau-io/trousseau/internal/fault"
	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

// TestConcurrencyIsBounded checks that concurrent Vault requests are limited, and
// that a caller that times out waiting gets that reason.
func TestConcurrencyIsBounded(t *testing.T) {
	const allowed, requests = 4, 20
	run(t, func(b *bench) {
		b.load(settings{})
		keyID := b.roundTrip()
		release := b.vault.Inject(vaulttest.Fault{Hang: true, Match: vaulttest.Ops(vaulttest.OpEncrypt)})
		outcome := make(chan error, requests)
		encrypt := func() {
			ctx, cancel := b.request()
			defer cancel()
			_, err := b.Encrypt(ctx, []byte("seed"))
			outcome <- err
		}
		for range requests {
			go encrypt()
		}
		synctest.Wait()
		if got := b.vault.InFlight(); got != allowed {
			t.Errorf("%d requests are with Vault, want %d", got, allowed)
		}
		b.wantStatus(keyID, "")
		got := make(map[fault.Class]int)
		for range requests {
			got[fault.ClassOf(<-outcome)]++
		}
		if got[fault.Timeout] != requests {
			t.Errorf("classes = %v, want %s only: Vault has answered nobody", got, fault.Timeout)
		}
		release()
		for range requests {
			go encrypt()
		}
		for range requests {
			if err := <-outcome; err != nil {
				t.Errorf("afterwards: %v", err)
			}
		}
	}, func(o *live.Options) { o.MaxVaultRequests = allowed })
}
