// SPDX-License-Identifier: Apache-2.0

package live_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/internal/daemon/live"
	"github.com/trousseau-io/trousseau/internal/fault"
	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

// TestAnswersThatSayNothingOfTheKey checks that they are an outage, with the grace, however long they last. They come
// from a Vault that is not to be asked, or from something before it.
func TestAnswersThatSayNothingOfTheKey(t *testing.T) {
	html := http.Header{"Content-Type": {"text/html"}}
	for name, answer := range map[string]vaulttest.Fault{
		"DR secondary":                {Status: 400, Body: `{"errors":["path disabled in replication DR secondary mode"]}`},
		"no token arrived":            {Status: 400, Body: `{"errors":["missing client token"]}`},
		"proxy not authorized":        {Status: 400, Body: `{"errors":["client address not authorized for x-forwarded-for and configured to reject connection"]}`},
		"unknown text":                {Status: 400, Body: `{"errors":["something new"]}`},
		"gateway's JSON":              {Status: 400, Body: `{"message":"bad request"}`},
		"page with 200":               {Status: 200, Header: html, Body: "<html>down for maintenance</html>"},
		"page with 400":               {Status: 400, Header: html, Body: "<html>400 Bad Request</html>"},
		"page with 401":               {Status: 401, Header: html, Body: "<html>who are you?</html>"},
		"firewall's page with 403":    {Status: 403, Header: html, Body: "<html>Forbidden by WAF</html>"},
		"page with 404":               {Status: 404, Body: "default backend - 404"},
		"page with 502":               {Status: 502, Header: html, Body: "<html>bad gateway</html>"},
		"page with 503":               {Status: 503, Header: html, Body: "<html>maintenance</html>"},
		"empty 404":                   {Status: 404, Body: `{"errors":[]}`},
		"no route":                    {Status: 404, Body: `{"errors":["no handler for route \"transit/decrypt/kek\". route entry not found."]}`},
		"namespace not found":         {Status: 404, Body: `{"errors":["namespace not found"]}`},
		"behind in replication":       {Status: 412, Body: `{"errors":["required index state not present"]}`},
		"recovery mode":               {Status: 403, Body: `{"errors":[]}`},
		"another engine":              {Status: 404, Body: `{"errors":["1 error occurred:\n\t* unsupported path\n\n"]}`},
		"another engine, without one": {Status: 204},
	} {
		t.Run(name+", at the first load", func(t *testing.T) {
			run(t, func(b *bench) {
				remove := b.vault.Inject(answer)
				b.load(settings{})
				b.after(time.Minute)
				if class := fault.ClassOf(b.Degraded()); class != fault.Unavailable {
					t.Errorf("class = %s, want unavailable: %v", class, b.Degraded())
				}
				remove()
				b.after(15 * time.Second)
				b.wantStatus(b.roundTrip(), "")
			})
		})
		t.Run(name, func(t *testing.T) {
			run(t, func(b *bench) {
				b.load(settings{})
				b.after(probeInterval)
				keyID := b.roundTrip()
				remove := b.vault.Inject(answer)
				b.after(2 * time.Minute)
				if got := b.state(); got != "degraded" {
					t.Errorf("within the grace the state is %s, want degraded: %v", got, b.Degraded())
				}
				b.wantStatus(keyID, "")
				if class := fault.ClassOf(b.Degraded()); class != fault.Unavailable {
					t.Errorf("class = %s, want unavailable: %v", class, b.Degraded())
				}
				b.after(grace)
				if got := b.state(); got != "unavailable" {
					t.Errorf("after the grace the state is %s, want unavailable", got)
				}
				if _, err := b.Status(); strings.Contains(err.Error(), "restart") {
					t.Errorf("it advises to restart: %v", err)
				}
				remove()
				b.after(15 * time.Second)
				b.wantStatus(b.roundTrip(), "")
			})
		})
	}
}

// TestLagIsForgotten checks that two short lags with an outage between them are not a long one.
func TestLagIsForgotten(t *testing.T) {
	run(t, func(b *bench) {
		b.load(settings{})
		b.key.Rotate()
		b.after(2 * probeInterval)
		keyID := b.KeyIDNow()
		b.vault.SetLag(1)
		b.after(40 * time.Second)
		b.vault.SetLag(0)
		b.vault.Seal()
		b.after(time.Minute)
		b.vault.Unseal()
		b.vault.SetLag(1)
		b.after(20 * time.Second)
		b.wantStatus(keyID, "")
	})
}

// TestSlowVault checks that a Vault which serves every request in time is never declared unusable, however many calls
// a proof takes.
func TestSlowVault(t *testing.T) {
	for _, nodes := range []int{1, 3, 5} {
		for _, readable := range []bool{true, false} {
			t.Run(fmt.Sprintf("%d nodes, readable %v", nodes, readable), func(t *testing.T) {
				run(t, func(b *bench) {
					b.vault.Inject(vaulttest.Fault{Delay: time.Second})
					b.load(b.severalNodes(nodes, readable))
					b.after(15 * time.Second)
					keyID := b.KeyIDNow()
					for range 60 {
						b.after(time.Minute)
						b.wantStatus(keyID, "")
						if err := b.Degraded(); err != nil {
							t.Fatalf("degraded: %v", err)
						}
						ctx, cancel := b.request()
						if _, err := b.Encrypt(ctx, []byte("seed")); err != nil {
							t.Errorf("Encrypt: %v", err)
						}
						cancel()
					}
				}, usualTimeout)
			})
		}
	}
}

func usualTimeout(o *live.Options) { o.RequestTimeout = 2500 * time.Millisecond }

// severalNodes returns settings with n addresses of the bench's Vault.
func (b *bench) severalNodes(n int, readable bool) settings {
	s := settings{}
	if !readable {
		s.token = b.vault.CreateToken(vaulttest.TokenOptions{Rules: vaulttest.Rules{
			"transit/encrypt/kek": {"update"}, "transit/decrypt/kek": {"update"}, "sys/capabilities-self": {"update"},
		}}).ID
	}
	for i := 2; i <= n; i++ {
		name := fmt.Sprintf("vault-%d", i)
		b.hosts[name] = b.vault.RoundTripper()
		if i == 2 {
			s.extra = "  addresses:\n"
		}
		s.extra += "  - http://" + name + ":8200\n"
	}
	return s
}

// TestDeniedReadCostsOneCall counts the calls of a probe with a policy that denies reading the key.
func TestDeniedReadCostsOneCall(t *testing.T) {
	run(t, func(b *bench) {
		b.load(b.severalNodes(1, false))
		b.after(0)
		b.vault.ResetCounts()
		b.after(probeInterval + 4*time.Second)
		if got := b.vault.Count(vaulttest.OpReadKey); got != 1 {
			t.Errorf("the key was read %d times, want once", got)
		}
		if encrypted, decrypted := b.vault.Count(vaulttest.OpEncrypt), b.vault.Count(vaulttest.OpDecrypt); encrypted != 1 || decrypted != 2 {
			t.Errorf("%d calls to encrypt and %d to decrypt, want 1 and 2", encrypted, decrypted)
		}
	})
}

// TestSuccessfulRequestIsEvidence uses a Vault that is too slow for probes and not for requests.
func TestSuccessfulRequestIsEvidence(t *testing.T) {
	run(t, func(b *bench) {
		b.load(settings{})
		keyID := b.KeyIDNow()
		b.vault.Inject(vaulttest.Fault{Delay: 500 * time.Millisecond})
		for range 30 {
			b.after(time.Minute)
			b.wantStatus(keyID, "")
			b.roundTrip()
		}
		if b.Degraded() == nil {
			t.Error("not degraded although no probe succeeds")
		}
		b.after(grace + 2*probeInterval)
		b.wantStatus("", "longer ago than the grace of 5m0s")
	}, usualTimeout, func(o *live.Options) { o.ProbeTimeout = 1500 * time.Millisecond })
}

// TestTrustIsBounded blocks the prober by its log. Status must not rely on an old proof.
func TestTrustIsBounded(t *testing.T) {
	run(t, func(b *bench) {
		b.load(settings{})
		b.after(probeInterval)
		b.log.blocked.Store(true)
		b.key.Rotate() // is logged
		b.after(2 * probeInterval)
		keyID, err := b.Status()
		if err != nil {
			t.Fatal(err)
		}
		b.after(grace)
		b.wantStatus(keyID, "")
		b.after(2 * probeInterval)
		b.wantStatus("", "no probe has ended since")
		if got := b.state(); got != "unavailable" || b.Degraded() == nil {
			t.Errorf("the state is %s, degraded: %v", got, b.Degraded())
		}
		if b.metric("trousseau_status_ok") != 0 {
			t.Error("the metric says that Status is ok")
		}
		b.log.blocked.Store(false)
		b.after(2 * time.Second)
		b.wantStatus(keyID, "")
	})
}
