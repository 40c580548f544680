// SPDX-License-Identifier: Apache-2.0

package live_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/internal/config"
	"github.com/trousseau-io/trousseau/internal/daemon/live"
	"github.com/trousseau-io/trousseau/internal/daemon/watch"
	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

const (
	loggedInAgain = "logged in to Vault again"
	expiresSoon   = "Vault token expires soon and cannot be renewed; issue a new one"
)

// appRole sets up an AppRole that issues tokens with these options, and returns the configuration lines for it.
func (b *bench) appRole(token vaulttest.TokenOptions) (*vaulttest.AppRole, string) {
	if token.Rules == nil {
		token.Rules = vaulttest.TransitPolicy("transit", "kek")
	}
	m := b.vault.EnableAppRole("", "approle")
	role := m.SetRole("trousseau", token)
	secret := m.NewSecretID("trousseau")
	return m, fmt.Sprintf("roleID: %s\n  secretID: %s", role, secret)
}

// loadWith delivers a configuration with a credential other than a token.
func (b *bench) loadWith(credential string) {
	b.deliver("provider: vault\nvault:\n  keynames: [kek]\n  address: http://vault:8200\n  " + credential + "\n")
}

// during makes requests continuously while do runs, and returns their number and the number of failures.
func (b *bench) during(something func()) (made, failed int) {
	stop := make(chan struct{})
	var loop sync.WaitGroup
	loop.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(2 * time.Minute):
			}
			ctx, cancel := b.request()
			wrapped, err := b.Encrypt(ctx, []byte("seed"))
			if err == nil {
				_, err = b.Decrypt(ctx, wrapped)
			}
			cancel()
			made++
			if err != nil {
				failed++
				b.t.Logf("a request failed: %v", err)
			}
		}
	})
	something()
	close(stop)
	loop.Wait()
	return made, failed
}

// TestTokenOfOurOwnIsKeptAlive checks that for any kind of token, requests succeed over many lifetimes, and that
// only the current token is live.
func TestTokenOfOurOwnIsKeptAlive(t *testing.T) {
	tests := []struct {
		name         string
		token        vaulttest.TokenOptions
		fewest, most int // logins within ten hours
		renewals     bool
	}{
		{"renewable", vaulttest.TokenOptions{TTL: time.Hour}, 1, 1, true},
		{"periodic", vaulttest.TokenOptions{Period: time.Hour}, 1, 1, true},
		{"with a maximum", vaulttest.TokenOptions{TTL: time.Hour, ExplicitMaxTTL: 3 * time.Hour}, 4, 6, true},
		{"batch", vaulttest.TokenOptions{TTL: time.Hour, Type: vaulttest.Batch}, 14, 18, false},
		{"short-lived", vaulttest.TokenOptions{TTL: 10 * time.Minute, ExplicitMaxTTL: 10 * time.Minute}, 80, 110, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			run(t, func(b *bench) {
				m, credential := b.appRole(tt.token)
				b.loadWith(credential)
				keyID := b.roundTrip()
				if made, failed := b.during(func() { b.after(10 * time.Hour) }); failed > 0 {
					t.Errorf("%d of %d requests failed", failed, made)
				}
				b.wantStatus(keyID, "")
				if got := m.Logins(); got < tt.fewest || got > tt.most {
					t.Errorf("%d logins, want %d to %d", got, tt.fewest, tt.most)
				}
				if got := b.vault.Count(vaulttest.OpRenewSelf) > 0; got != tt.renewals {
					t.Errorf("%d renewals, want any: %v", b.vault.Count(vaulttest.OpRenewSelf), tt.renewals)
				}
				// The previous token is valid while a request may still use it.
				if len(m.Tokens()) > 1 {
					b.after(requestTimeout)
				}
				if got := len(m.Tokens()); got > 1 {
					t.Errorf("%d live tokens, want the one in use", got)
				}
				if got := b.metric("trousseau_vault_token_kept_alive"); got != 1 {
					t.Errorf("trousseau_vault_token_kept_alive = %v", got)
				}
				if times, _ := b.logged(expiresSoon); times > 0 {
					t.Error("warned of the expiry of a token that is replaced")
				}
			}, rarely)
		})
	}
}

// TestTokenOfOurOwnIsRevoked checks the revocation at a reload, once running requests have ended, and at the end.
// A token supplied by an operator is never revoked.
func TestTokenOfOurOwnIsRevoked(t *testing.T) {
	var fake *vaulttest.Server
	run(t, func(b *bench) {
		fake = b.vault
		m, credential := b.appRole(vaulttest.TokenOptions{TTL: time.Hour})
		b.loadWith(credential)
		first := m.Tokens()
		if len(first) != 1 {
			t.Fatalf("%d live tokens, want 1", len(first))
		}
		supplied := b.load(settings{})
		b.after(requestTimeout - 100*time.Millisecond)
		if !b.vault.TokenAlive(first[0].ID) {
			t.Error("revoked while a request could still be using it")
		}
		b.after(200 * time.Millisecond)
		if b.vault.TokenAlive(first[0].ID) {
			t.Error("not revoked after its client was replaced")
		}
		b.loadWith(credential)
		b.after(time.Minute)
		if !b.vault.TokenAlive(supplied) {
			t.Error("the operator's token was revoked")
		}
	})
	if got := fake.Count(vaulttest.OpRevokeSelf); got != 2 {
		t.Errorf("%d revocations after the end, want one for each login", got)
	}
}

// TestTokenOfOurOwnIsRevokedByOthers checks that no request fails because of it.
func TestTokenOfOurOwnIsRevokedByOthers(t *testing.T) {
	run(t, func(b *bench) {
		m, credential := b.appRole(vaulttest.TokenOptions{TTL: time.Hour})
		b.loadWith(credential)
		b.after(5 * time.Second)
		for range 3 {
			b.vault.Revoke(m.Tokens()[0].ID)
			b.roundTrip()
			b.after(5 * time.Second)
		}
		if got := m.Logins(); got != 4 {
			t.Errorf("%d logins, want one for each token", got)
		}
		if times, _ := b.logged(loggedInAgain); times != 3 {
			t.Errorf("logged %d times", times)
		}
	})
}

// TestTokenIsRevokedWhileTheKeyIsLost checks that the login is repeated as soon as
// the key is back.
func TestTokenIsRevokedWhileTheKeyIsLost(t *testing.T) {
	run(t, func(b *bench) {
		m, credential := b.appRole(vaulttest.TokenOptions{TTL: time.Hour})
		b.loadWith(credential)
		b.raiseMinimum()
		b.after(2 * probeInterval)
		b.vault.Revoke(m.Tokens()[0].ID)
		b.after(time.Minute)
		if got := b.state(); got != "lost" {
			t.Fatalf("the state is %s, want lost", got)
		}
		b.key.SetMinDecryptionVersion(1)
		b.after(15 * time.Second)
		if got := b.state(); got != "ok" {
			t.Errorf("the state is %s, want ok: %v", got, b.Degraded())
		}
	})
}

func TestSuppliedTokenIsRenewed(t *testing.T) {
	run(t, func(b *bench) {
		token := b.vault.CreateToken(vaulttest.TokenOptions{Period: time.Hour, Rules: vaulttest.TransitPolicy("transit", "kek")})
		b.load(settings{token: token.ID})
		if made, failed := b.during(func() { b.after(10 * time.Hour) }); failed > 0 {
			t.Errorf("%d of %d requests failed", failed, made)
		}
		// Each renewal is due when a third of the lifetime is left: every 40 minutes.
		if got := b.vault.Count(vaulttest.OpRenewSelf); got < 13 || got > 18 {
			t.Errorf("%d renewals of a token of an hour in ten", got)
		}
		if times, _ := b.logged(expiresSoon); times > 0 {
			t.Error("warned of the expiry of a token that is renewed")
		}
		if got := b.metric("trousseau_vault_token_kept_alive"); got != 1 {
			t.Errorf("trousseau_vault_token_kept_alive = %v", got)
		}
	}, rarely)
}

// TestExpiryIsAnnounced checks the warnings about a token that cannot be renewed: once each at 7 days, 1 day and 1
// hour before it expires.
func TestExpiryIsAnnounced(t *testing.T) {
	tests := []struct {
		name  string
		token vaulttest.TokenOptions
		want  []time.Duration
	}{
		{"eight days", vaulttest.TokenOptions{TTL: 192 * time.Hour, NotRenewable: true}, []time.Duration{168 * time.Hour, 24 * time.Hour, time.Hour}},
		{"a batch token of two days", vaulttest.TokenOptions{TTL: 48 * time.Hour, Type: vaulttest.Batch}, []time.Duration{24 * time.Hour, time.Hour}},
		{"renewable up to a maximum", vaulttest.TokenOptions{TTL: 24 * time.Hour, ExplicitMaxTTL: 30 * time.Hour}, []time.Duration{time.Hour}},
		{"half an hour", vaulttest.TokenOptions{TTL: 30 * time.Minute, NotRenewable: true}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			run(t, func(b *bench) {
				tt.token.Rules = vaulttest.TransitPolicy("transit", "kek")
				token := b.vault.CreateToken(tt.token)
				b.load(settings{token: token.ID})
				for b.vault.TokenAlive(token.ID) {
					b.after(10 * time.Minute)
				}
				var got []time.Duration
				for _, e := range b.logs.FilterMessage(expiresSoon).All() {
					fields := e.ContextMap()
					within, _ := fields["within"].(time.Duration)
					expires, _ := fields["expires"].(time.Time)
					if left := expires.Sub(e.Time); left > within+2*time.Second || left < within-12*time.Minute {
						t.Errorf("the warning of %s came %s before the end", within, left)
					}
					got = append(got, within)
				}
				if !slices.Equal(got, tt.want) {
					t.Errorf("warned %v before the end, want %v", got, tt.want)
				}
			}, rarely)
		})
	}
}

func TestLoginRefused(t *testing.T) {
	run(t, func(b *bench) {
		m, credential := b.appRole(vaulttest.TokenOptions{TTL: time.Hour})
		good := b.load(settings{})
		b.loadWith(credential + "-wrong")
		if times, problem := b.logged(notUsed); times != 1 || !strings.Contains(problem, "vault refused the login") {
			t.Errorf("logged %d times: %s", times, problem)
		}
		b.wantMetrics(`
# HELP trousseau_config_last_reload_error_info Class of the failure that keeps the configuration from being used; absent if it is in use.
# TYPE trousseau_config_last_reload_error_info gauge
trousseau_config_last_reload_error_info{class="login_denied"} 1
`, "trousseau_config_last_reload_error_info")
		// Vault locks an AppRole out after five refusals within 15 minutes.
		b.after(15 * time.Minute)
		if got := b.vault.Count(vaulttest.OpLogin); got > 5 {
			t.Errorf("%d logins in a quarter of an hour", got)
		}
		b.roundTrip()
		b.loadWith(credential)
		b.after(0)
		b.roundTrip()
		if m.Logins() != 1 || !b.vault.TokenAlive(good) {
			t.Errorf("%d logins; is the operator's token alive: %v", m.Logins(), b.vault.TokenAlive(good))
		}
	})
}

// TestLoginWaitsForVault checks that a failed login that is not a refusal is retried soon.
func TestLoginWaitsForVault(t *testing.T) {
	run(t, func(b *bench) {
		_, credential := b.appRole(vaulttest.TokenOptions{TTL: time.Hour})
		b.vault.Seal()
		b.loadWith(credential)
		b.after(10 * time.Minute)
		b.wantStatus("", "vault is sealed")
		b.vault.Unseal()
		b.after(45 * time.Second)
		b.roundTrip()
	})
}

// TestOutageWhenTheTokenIsDue seals Vault while the daemon's own token expires.
func TestOutageWhenTheTokenIsDue(t *testing.T) {
	run(t, func(b *bench) {
		m, credential := b.appRole(vaulttest.TokenOptions{TTL: 10 * time.Minute})
		b.loadWith(credential)
		b.vault.Seal()
		b.after(30 * time.Minute)
		b.vault.Unseal()
		b.after(15 * time.Second)
		b.wantStatus(b.roundTrip(), "")
		if got := m.Logins(); got != 2 {
			t.Errorf("%d logins, want 2", got)
		}
	})
}

func TestTokenOfFewUsesIsRefused(t *testing.T) {
	run(t, func(b *bench) {
		token := b.vault.CreateToken(vaulttest.TokenOptions{NumUses: 50, Rules: vaulttest.TransitPolicy("transit", "kek")})
		b.load(settings{token: token.ID})
		b.wantStatus("", "good for a limited number of requests")
		_, credential := b.appRole(vaulttest.TokenOptions{TTL: time.Hour, NumUses: 50})
		b.loadWith(credential)
		b.wantStatus("", "issue one without num_uses (token_num_uses)")
		b.load(settings{})
		b.roundTrip()
	})
}

// TestAgentsToken checks that without a token of its own, the daemon does not renew, replace or warn about one.
func TestAgentsToken(t *testing.T) {
	run(t, func(b *bench) {
		agent, err := vaulttest.NewProxy(b.vault, vaulttest.ProxyOptions{
			Listen: vaulttest.Options{InProcess: true},
			Token:  vaulttest.TokenOptions{TTL: 24 * time.Hour, Rules: vaulttest.TransitPolicy("transit", "kek")},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer agent.Close()
		b.hosts["vault"] = agent.RoundTripper()
		b.loadWith("apiProxy: true")
		b.roundTrip()
		b.after(23*time.Hour + 30*time.Minute)
		if got := b.vault.Count(vaulttest.OpRenewSelf); got != 0 {
			t.Errorf("%d renewals of the agent's token", got)
		}
		if times, _ := b.logged(expiresSoon); times > 0 {
			t.Error("warned of the death of the agent's token")
		}
		b.roundTrip()
		b.vault.Revoke(agent.Token().ID)
		b.roundTrip()
	}, rarely)
}

// TestTokenOfSeconds checks that a token in its last second is still valid.
func TestTokenOfSeconds(t *testing.T) {
	run(t, func(b *bench) {
		m, credential := b.appRole(vaulttest.TokenOptions{TTL: 6 * time.Second, MaxTTL: 15 * time.Second})
		b.loadWith(credential)
		b.after(5 * time.Minute)
		if got := m.Logins(); got < 15 {
			t.Errorf("%d logins in 5 minutes, want one for each 15 seconds", got)
		}
		if got := len(m.Tokens()); got == 0 {
			t.Error("no live token")
		}
	}, rarely)
}

// TestRenewalFails answers renewals with 500, as Vault does if a role has changed.
func TestRenewalFails(t *testing.T) {
	run(t, func(b *bench) {
		m, credential := b.appRole(vaulttest.TokenOptions{TTL: time.Hour})
		b.loadWith(credential)
		b.vault.Inject(vaulttest.Fault{Match: vaulttest.Ops(vaulttest.OpRenewSelf), Status: 500})
		b.after(10 * time.Hour)
		if times, problem := b.logged("KEK cannot be used"); times > 0 {
			t.Errorf("the token died %d times: %s", times, problem)
		}
		if got := m.Logins(); got < 10 || got > 20 {
			t.Errorf("%d logins within ten hours, want one for each 40 minutes", got)
		}
	}, rarely)
}

// rarely sets a probe interval of ten minutes, because token handling must not depend on it.
func rarely(o *live.Options) { o.ProbeInterval = 10 * time.Minute }

func requireTLS(o *live.Options) { o.RequireTLS = true }

// TestTokenInTheClear checks the warning about unencrypted connections at each adoption, and the refusal if the
// operator requires TLS.
func TestTokenInTheClear(t *testing.T) {
	const warning = "vault address is not https; the token is sent unencrypted"
	run(t, func(b *bench) {
		b.load(settings{})
		b.load(settings{})
		if times, _ := b.logged(warning); times != 2 {
			t.Errorf("warned %d times, want 2", times)
		}
		b.hosts["localhost"] = b.vault.RoundTripper()
		b.load(settings{address: "http://localhost:8200"})
		if times, _ := b.logged(warning); times != 2 {
			t.Error("warned of a token that does not leave the host")
		}
	})
	run(t, func(b *bench) {
		b.load(settings{})
		b.wantStatus("", "vault's address http://vault:8200 is not https, and --require-tls is set")
		if got := b.vault.Total(); got != 0 {
			t.Errorf("%d requests were sent in the clear", got)
		}
		b.hosts["localhost"] = b.vault.RoundTripper()
		b.load(settings{address: "http://localhost:8200"})
		b.roundTrip()
	}, requireTLS)
}

// TestDeniedByPolicyMintsFewTokens checks that not every probe logs in: another token does not help if the policy
// is too narrow.
func TestDeniedByPolicyMintsFewTokens(t *testing.T) {
	run(t, func(b *bench) {
		m, credential := b.appRole(vaulttest.TokenOptions{TTL: time.Hour, Rules: vaulttest.Rules{}, Policies: []string{"kms"}})
		b.vault.SetPolicy("kms", vaulttest.TransitPolicy("transit", "kek"))
		b.loadWith(credential)
		b.roundTrip()
		b.vault.SetPolicy("kms", vaulttest.Rules{})
		b.after(time.Hour)
		if got := m.Logins(); got > 1000 {
			t.Errorf("%d logins in an hour", got)
		}
		if got := len(m.Tokens()); got > 2 {
			t.Errorf("%d live tokens", got)
		}
		b.vault.SetPolicy("kms", vaulttest.TransitPolicy("transit", "kek"))
		b.after(15 * time.Second)
		if b.Degraded() != nil {
			t.Errorf("degraded: %v", b.Degraded())
		}
		b.roundTrip()
	})
}

// withAnotherSecret returns a credential that Vault refuses.
func withAnotherSecret(credential string) string {
	role, _, _ := strings.Cut(credential, "secretID:")
	return role + "secretID: 11111111-2222-3333-4444-555555555555"
}

// threeNodes starts two more processes with the bench's configuration, and returns the times of all logins.
func (b *bench) threeNodes(credential string) *[]time.Duration {
	logins := new([]time.Duration)
	began := time.Now()
	b.vault.Intercept(func(op string, _ http.ResponseWriter, _ *http.Request) bool {
		if op == vaulttest.OpLogin {
			*logins = append(*logins, time.Since(began))
		}
		return false
	})
	b.loadWith(credential)
	first, contents, opts := b.KEK, b.contents, b.opts
	for range 2 {
		b.contents = make(chan watch.Content[*config.Config], 1)
		b.opts.Contents, b.opts.Registerer = b.contents, nil
		stop := b.stop
		b.start()
		b.loadWith(credential)
		added := b.stop
		b.stop = func() { added(); stop() }
	}
	b.KEK, b.contents, b.opts = first, contents, opts
	return logins
}

// TestRefusedLoginsStayBelowTheLockout checks that three nodes with one AppRole, refused for hours, do not lock it out:
// the right secret ID works at once.
func TestRefusedLoginsStayBelowTheLockout(t *testing.T) {
	run(t, func(b *bench) {
		_, credential := b.appRole(vaulttest.TokenOptions{TTL: time.Hour})
		logins := b.threeNodes(withAnotherSecret(credential))
		b.after(2 * time.Hour)
		for i, last := range *logins {
			within := 0
			for _, earlier := range (*logins)[:i+1] {
				if last-earlier < 15*time.Minute {
					within++
				}
			}
			if within > 4 {
				t.Errorf("%d refused logins within 15 minutes, at %v", within, *logins)
				break
			}
		}
		if len(*logins) < 15 {
			t.Errorf("%d logins in two hours", len(*logins))
		}
		b.loadWith(credential)
		b.roundTrip()
	})
}

// TestRefusedLoginSaysWhenItTriesNext checks the field of the log, and what ends the pause early.
func TestRefusedLoginSaysWhenItTriesNext(t *testing.T) {
	for name, mend := range map[string]func(*bench){
		"asked":           func(b *bench) { b.Hurry() },
		"Vault restarted": func(b *bench) { b.vault.Seal(); b.after(time.Minute); b.vault.Unseal() },
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(b *bench) {
				m, credential := b.appRole(vaulttest.TokenOptions{TTL: time.Hour})
				refuse := b.vault.Inject(vaulttest.Fault{
					Match: vaulttest.Ops(vaulttest.OpLogin), Status: 400, Body: `{"errors":["invalid role or secret ID"]}`,
				})
				b.loadWith(credential)
				entry := b.logs.FilterMessage(notYet).All()[0]
				next, _ := entry.ContextMap()["next_attempt"].(time.Time)
				if wait := next.Sub(entry.Time); wait < 15*time.Minute || wait > 20*time.Minute {
					t.Errorf("the next attempt is in %s", wait)
				}
				b.after(time.Minute)
				refuse()
				if got := b.vault.Count(vaulttest.OpLogin); got != 1 {
					t.Errorf("%d logins in the pause", got)
				}
				mend(b)
				b.after(2 * probeInterval)
				if got := m.Logins(); got != 1 {
					t.Fatalf("%d logins, want 1", got)
				}
				b.roundTrip()
			})
		})
	}
}

// TestAnswersThatRefuseNoLogin checks that a proxy's page, or a node that is not to be asked, is no refusal of the
// credential: the login is tried again soon.
func TestAnswersThatRefuseNoLogin(t *testing.T) {
	for name, answer := range map[string]vaulttest.Fault{
		"page with 404":    {Status: 404, Body: "404 page not found\n"},
		"page with 400":    {Status: 400, Body: "<html>400 Bad Request</html>"},
		"firewall's 403":   {Status: 403, Body: "<html>Forbidden by WAF</html>"},
		"DR secondary":     {Status: 400, Body: `{"errors":["path disabled in replication DR secondary mode"]}`},
		"no token arrived": {Status: 400, Body: `{"errors":["missing client token"]}`},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(b *bench) {
				_, credential := b.appRole(vaulttest.TokenOptions{TTL: time.Hour})
				remove := b.vault.Inject(answer)
				b.loadWith(credential)
				b.after(time.Minute)
				remove()
				b.after(10 * time.Second)
				b.roundTrip()
			})
		})
	}
}

// TestPeriodicTokenOfTheOperator checks that a given token with a period lives on, although no one writes another.
func TestPeriodicTokenOfTheOperator(t *testing.T) {
	run(t, func(b *bench) {
		token := b.vault.CreateToken(vaulttest.TokenOptions{Period: 768 * time.Hour, Rules: vaulttest.TransitPolicy("transit", "kek")})
		b.load(settings{token: token.ID})
		b.after(2000 * time.Hour)
		if !b.vault.TokenAlive(token.ID) {
			t.Error("it has expired")
		}
		if times, _ := b.logged(expiresSoon); times != 0 {
			t.Errorf("warned %d times of its expiry", times)
		}
	}, func(o *live.Options) { o.ProbeInterval = time.Hour })
}
