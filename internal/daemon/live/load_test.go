// SPDX-License-Identifier: Apache-2.0

package live_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/internal/fault"
	"github.com/trousseau-io/trousseau/internal/keyid"
	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

const (
	notUsed  = "configuration refused; the previous one keeps serving"
	notYet   = "no usable configuration yet; requests are refused"
	nowInUse = "configuration adopted"
)

// permissionDenied is the body with which Vault denies a request.
const permissionDenied = `{"errors":["1 error occurred:\n\t* permission denied\n\n"]}`

func TestFirstLoad(t *testing.T) {
	run(t, func(b *bench) {
		b.wantStatus("", "no configuration has been read yet")
		ctx, cancel := b.request()
		defer cancel()
		if _, err := b.Encrypt(ctx, []byte("seed")); err == nil {
			t.Error("Encrypt worked before there was a configuration")
		}
		b.load(settings{})
		want := fmt.Sprintf("transit/kek/v1@%d", b.key.Created(1).Unix())
		b.wantStatus(want, "")
		if got := b.roundTrip(); got != want {
			t.Errorf("Encrypt's key_id = %q, Status' = %q", got, want)
		}
		b.wantMetrics(fmt.Sprintf(`
# HELP trousseau_config_last_reload_successful Whether the configuration on disk is the one in use.
# TYPE trousseau_config_last_reload_successful gauge
trousseau_config_last_reload_successful 1
# HELP trousseau_degraded Whether the KEK cannot be fully used right now.
# TYPE trousseau_degraded gauge
trousseau_degraded 0
# HELP trousseau_generation Number of the generation in use, counted from 1 after each start; 0 before the first.
# TYPE trousseau_generation gauge
trousseau_generation 1
# HELP trousseau_key_info Key version that encrypts; key_id_hash is the label of kube-apiserver's own metrics.
# TYPE trousseau_key_info gauge
trousseau_key_info{key="kek",key_id_hash="%s",version="1"} 1
`, keyid.Hash(want)), "trousseau_config_last_reload_successful", "trousseau_degraded", "trousseau_generation", "trousseau_key_info")
	})
}

func TestNamespaceAndMountAreInTheKeyID(t *testing.T) {
	run(t, func(b *bench) {
		mount := b.vault.Mount("team/a", "kms/transit")
		mount.CreateKey("kek")
		token := b.vault.CreateToken(vaulttest.TokenOptions{
			Namespace: "team/a",
			Rules:     vaulttest.TransitPolicy("kms/transit", "kek"),
		})
		b.load(settings{token: token.ID, extra: "  namespace: team/a\n  transitPath: kms/transit\n"})
		if got := b.roundTrip(); !strings.HasPrefix(got, "team/a/kms/transit/kek/v1@") {
			t.Errorf("key_id = %q", got)
		}
	})
}

// TestReload replaces a working configuration. Its columns are visible to an operator.
func TestReload(t *testing.T) {
	tests := []struct {
		name    string
		change  func(*bench)
		adopted bool
		class   string // of the failure, in the metric
		problem string // in the log
	}{
		{"new token", func(b *bench) { b.load(settings{}) }, true, "", ""},
		{"new first key, the old one still listed", func(b *bench) {
			b.vault.CreateKey("next")
			b.load(settings{keys: []string{"next", "kek"}})
		}, true, "", ""},
		{"another address of the same Vault", func(b *bench) {
			b.hosts["standby"] = b.vault.RoundTripper()
			b.load(settings{address: "http://standby:8200"})
		}, true, "", ""},

		{"garbage", func(b *bench) { b.deliver("\x00\x01") }, false, "config", "reading /etc/trousseau/config.yaml: "},
		{"an unknown field", func(b *bench) { b.load(settings{extra: "  tokn: x\n"}) }, false, "config", "vault.tokn"},
		{"the KV secret lacks the token", func(b *bench) { b.load(settings{token: "<no value>"}) }, false, "config", "vault.token"},
		{"another key only", func(b *bench) {
			b.vault.CreateKey("next")
			b.load(settings{keys: []string{"next"}})
		}, false, "refused_key", "does not list the key kek"},
		{"another mount", func(b *bench) {
			b.vault.Mount("", "transit2").CreateKey("kek")
			token := b.vault.CreateToken(vaulttest.TokenOptions{Rules: vaulttest.TransitPolicy("transit2", "kek")})
			b.load(settings{token: token.ID, extra: "  transitPath: transit2\n"})
		}, false, "refused_engine", "names the transit engine transit2, but data is encrypted by transit"},
		{"another Vault", func(b *bench) {
			other := inProcess(b.t)
			other.CreateKey("kek")
			b.hosts["other"] = other.RoundTripper()
			b.load(settings{address: "http://other:8200", token: other.KMSToken("kek")})
		}, false, "refused_vault", "check whether it is another Vault or the key was recreated"},
		{"a key that does not exist", func(b *bench) {
			b.load(settings{keys: []string{"typo", "kek"}, token: b.vault.RootToken()})
		}, false, "key_lost", "decrypting with transit/typo at http://vault:8200: the key does not exist"},
		{"a token without policy", func(b *bench) {
			b.load(settings{token: b.vault.CreateToken(vaulttest.TokenOptions{}).ID})
		}, false, "denied", `its policy lacks "update" on transit/encrypt/kek`},
		{"a token that may not decrypt", func(b *bench) {
			token := b.vault.CreateToken(vaulttest.TokenOptions{Rules: vaulttest.Rules{"transit/encrypt/kek": {"update"}}})
			b.load(settings{token: token.ID})
		}, false, "denied", `its policy lacks "update" on transit/decrypt/kek`},
		{"a dead token", func(b *bench) {
			token := b.vault.KMSToken("kek")
			b.vault.Revoke(token)
			b.load(settings{token: token})
		}, false, "denied", "the token is expired or revoked"},
		{"an address without a server", func(b *bench) { b.load(settings{address: "http://nowhere:8200"}) }, false, "unavailable", "nowhere"},
		{"a Vault that is sealed", func(b *bench) {
			b.vault.Seal()
			b.load(settings{})
			b.vault.Unseal()
		}, false, "sealed", "vault is sealed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			run(t, func(b *bench) {
				b.load(settings{})
				before := b.roundTrip()
				ctx, cancel := b.request()
				defer cancel()
				old, err := b.Encrypt(ctx, []byte("old"))
				if err != nil {
					t.Fatal(err)
				}
				adopted := b.metric("trousseau_config_last_reload_success_timestamp_seconds")
				b.after(time.Second)

				tt.change(b)

				times, problem := b.logged(notUsed)
				if tt.adopted {
					if got := b.metric("trousseau_generation"); got != 2 || times != 0 {
						t.Errorf("generation %v, %q", got, problem)
					}
				} else {
					b.wantStatus(before, "")
					if got := b.metric("trousseau_generation"); got != 1 {
						t.Errorf("generation = %v, want 1", got)
					}
					if got := b.metric("trousseau_config_last_reload_success_timestamp_seconds"); got != adopted {
						t.Errorf("the time of the last success moved by %v s", got-adopted)
					}
					if times != 1 || !strings.Contains(problem, tt.problem) {
						t.Errorf("logged %d times: %q, want once: %q", times, problem, tt.problem)
					}
					b.wantMetrics(fmt.Sprintf(`
# HELP trousseau_config_last_reload_error_info Class of the failure that keeps the configuration from being used; absent if it is in use.
# TYPE trousseau_config_last_reload_error_info gauge
trousseau_config_last_reload_error_info{class=%q} 1
# HELP trousseau_config_reloads_total Attempts to adopt configuration, by result: adopted or the class of the failure.
# TYPE trousseau_config_reloads_total counter
trousseau_config_reloads_total{result="adopted"} 1
trousseau_config_reloads_total{result=%q} 1
`, tt.class, tt.class), "trousseau_config_last_reload_error_info", "trousseau_config_reloads_total")
				}
				b.roundTrip()
				if plaintext, err := b.Decrypt(ctx, old); err != nil || string(plaintext) != "old" {
					t.Errorf("data encrypted before: %q, %v", plaintext, err)
				}

				// Correcting it is enough.
				b.load(settings{keys: []string{"kek", "next"}})
				b.wantStatus(before, "")
				if got := b.metric("trousseau_config_last_reload_successful"); got != 1 {
					t.Errorf("last_reload_successful = %v after a good configuration", got)
				}
			})
		})
	}
}

func TestAFailureIsLoggedOncePerContent(t *testing.T) {
	run(t, func(b *bench) {
		b.load(settings{})
		b.vault.Seal()
		b.load(settings{})
		b.after(2 * time.Minute)
		if times, _ := b.logged(notUsed); times != 1 {
			t.Errorf("one content's failure was logged %d times", times)
		}
		b.load(settings{})
		if times, _ := b.logged(notUsed); times != 2 {
			t.Errorf("two contents' failures were logged %d times", times)
		}
	})
}

func TestBytesThatAreWrongAreNotTriedAgain(t *testing.T) {
	run(t, func(b *bench) {
		b.deliver("vault: [")
		b.after(time.Hour)
		b.wantMetrics(`
# HELP trousseau_config_reloads_total Attempts to adopt configuration, by result: adopted or the class of the failure.
# TYPE trousseau_config_reloads_total counter
trousseau_config_reloads_total{result="config"} 1
`, "trousseau_config_reloads_total")
		b.wantStatus("", "reading /etc/trousseau/config.yaml: ")
	})
}

func TestVaultThatComesLater(t *testing.T) {
	run(t, func(b *bench) {
		b.vault.Stop()
		b.load(settings{})
		b.after(10 * time.Minute)
		b.wantStatus("", "connection refused")
		if times, _ := b.logged(notYet); times != 1 {
			t.Errorf("logged %d times", times)
		}
		if err := b.vault.Start(); err != nil {
			t.Fatal(err)
		}
		b.after(time.Minute)
		b.wantStatus(b.roundTrip(), "")
	})
}

func TestConfigurationPutBack(t *testing.T) {
	run(t, func(b *bench) {
		token := b.load(settings{})
		calls := b.vault.Total()
		b.deliver("vault: [")
		b.load(settings{token: token})
		if got := b.metric("trousseau_generation"); got != 1 {
			t.Errorf("generation = %v, want 1", got)
		}
		if got := b.metric("trousseau_config_last_reload_successful"); got != 1 {
			t.Errorf("last_reload_successful = %v", got)
		}
		if got := b.vault.Total(); got != calls {
			t.Errorf("%d Vault calls for configuration that is in use", got-calls)
		}
	})
}

func TestPolicyThatDeniesReadingTheKey(t *testing.T) {
	run(t, func(b *bench) {
		b.key.Rotate()
		token := b.vault.CreateToken(vaulttest.TokenOptions{Rules: vaulttest.Rules{
			"transit/encrypt/kek": {"update"},
			"transit/decrypt/kek": {"update"},
		}})
		b.load(settings{token: token.ID})
		b.wantStatus("transit/kek/v2", "")
		b.key.Rotate()
		b.after(2 * probeInterval)
		b.wantStatus("transit/kek/v3", "")
		b.roundTrip()
	})
}

// TestDenialThatIsNotThePolicys uses an agent that has no token before its first login and between two logins. A
// key_id without the creation time would be reported, and changed by the next reading of the key.
func TestDenialThatIsNotThePolicys(t *testing.T) {
	run(t, func(b *bench) {
		deny := vaulttest.Fault{Times: 1, Status: http.StatusForbidden, Body: permissionDenied, Match: vaulttest.Ops(vaulttest.OpReadKey)}
		dated := func(version int) string {
			return fmt.Sprintf("transit/kek/v%d@%d", version, b.key.Created(version).Unix())
		}
		b.vault.Inject(deny)
		b.load(settings{})
		b.wantStatus(dated(1), "")
		b.key.Rotate()
		b.vault.Inject(deny)
		b.after(2 * probeInterval)
		b.wantStatus(dated(2), "")
		if got := b.metric("trousseau_generation"); got != 2 {
			t.Errorf("generation = %v, want 2: one for each key version", got)
		}
	})
}

// TestDateIsOfTheSameAnswer uses two nodes: the one that lags behind reports the key's age after the other has
// encrypted with a version that the first does not know.
func TestDateIsOfTheSameAnswer(t *testing.T) {
	run(t, func(b *bench) {
		b.key.Rotate()
		b.vault.Inject(vaulttest.Fault{Times: 1, Status: http.StatusForbidden, Body: permissionDenied, Match: vaulttest.Ops(vaulttest.OpReadKey)})
		b.vault.Inject(vaulttest.Fault{
			Times: 1,
			Match: vaulttest.Ops(vaulttest.OpDecrypt),
			Handle: func(string, http.ResponseWriter, *http.Request) bool {
				b.vault.SetLag(1) // from the next request on
				return false
			},
		})
		b.load(settings{})
		b.wantStatus(fmt.Sprintf("transit/kek/v1@%d", b.key.Created(1).Unix()), "")
		b.vault.SetLag(0)
		b.after(2 * probeInterval)
		b.wantStatus(fmt.Sprintf("transit/kek/v2@%d", b.key.Created(2).Unix()), "")
	})
}

func TestTokenThatMayNoLongerReadTheKey(t *testing.T) {
	run(t, func(b *bench) {
		b.load(settings{})
		keyID, _ := b.Status()
		b.load(settings{token: b.vault.CreateToken(vaulttest.TokenOptions{Rules: vaulttest.Rules{
			"transit/encrypt/kek": {"update"},
			"transit/decrypt/kek": {"update"},
		}}).ID})
		if got := b.metric("trousseau_generation"); got != 2 {
			t.Fatalf("generation = %v, want 2", got)
		}
		b.wantStatus(keyID, "")
		b.after(2 * probeInterval)
		b.wantStatus(keyID, "")
		if got := b.roundTrip(); got != keyID {
			t.Errorf("Encrypt's key_id = %q, want %q", got, keyID)
		}
	})
}

func TestLookUpThatHangsKeepsNoConfigurationOut(t *testing.T) {
	run(t, func(b *bench) {
		b.load(settings{})
		b.vault.Inject(vaulttest.Fault{Hang: true, Match: vaulttest.Ops(vaulttest.OpLookupSelf)})
		b.load(settings{})
		b.after(requestTimeout)
		if got := b.metric("trousseau_generation"); got != 2 {
			t.Errorf("generation = %v, want 2", got)
		}
	})
}

// TestTokenIsKnownSoon checks that the token look-up is retried soon after a slow answer, without waiting for a
// probe. A look-up that never succeeds must not cost requests.
func TestTokenIsKnownSoon(t *testing.T) {
	for name, times := range map[string]int{"slow once": 1, "slow always": 0} {
		t.Run(name, func(t *testing.T) {
			run(t, func(b *bench) {
				b.vault.Inject(vaulttest.Fault{Delay: requestTimeout / 2, Times: times, Match: vaulttest.Ops(vaulttest.OpLookupSelf)})
				b.load(settings{})
				b.after(4 * time.Second)
				if n, err := countSeries(b, "trousseau_vault_token_info"); n != 1 || err != nil {
					t.Errorf("%d series of token info before the first probe, %v", n, err)
				}
				if got := b.vault.Count(vaulttest.OpLookupSelf); got != 2 {
					t.Errorf("asked %d times before the first probe, want twice", got)
				}
			})
		})
	}
}

func TestTokenMetrics(t *testing.T) {
	run(t, func(b *bench) {
		token := b.vault.CreateToken(vaulttest.TokenOptions{TTL: time.Hour, Rules: vaulttest.TransitPolicy("transit", "kek")})
		dies := float64(time.Now().Add(time.Hour).Unix())
		b.load(settings{token: token.ID})
		if got := b.metric("trousseau_vault_token_expiry_timestamp_seconds"); got != dies {
			t.Errorf("expiry = %v, want %v", got, dies)
		}
		if n, err := countSeries(b, "trousseau_vault_token_info"); n != 1 || err != nil {
			t.Errorf("%d series of token info, %v", n, err)
		}
		b.load(settings{})
		if n, err := countSeries(b, "trousseau_vault_token_info"); n != 1 || err != nil {
			t.Errorf("%d series of token info after a change of token, %v", n, err)
		}
	})
}

func TestKeyIDTooLongForTheKMSAPI(t *testing.T) {
	// Config bounds every name so that a key_id cannot become too long; this test compares the two bounds.
	name := strings.Repeat("n", 256)
	id := keyid.ID{Engine: name + "/" + name, Key: name, Version: 1<<31 - 1, Created: 1<<63 - 1}
	if got := len(id.String()); got > keyid.MaxSize {
		t.Errorf("the longest key_id is %d bytes", got)
	}
}

func countSeries(b *bench, name string) (int, error) {
	families, err := b.registry.Gather()
	for _, f := range families {
		if f.GetName() == name {
			return len(f.GetMetric()), err
		}
	}
	return 0, err
}

// TestRefusedByTheNamesAlone checks that Vault is not asked about a configuration that only other bytes can mend.
func TestRefusedByTheNamesAlone(t *testing.T) {
	for name, lines := range map[string]string{
		"active key not listed":   "keynames: [other]\n  address: http://vault:8200\n",
		"another engine":          "keynames: [kek]\n  address: http://vault:8200\n  transitPath: transit2\n",
		"associated data removed": "keynames: [kek]\n  address: http://vault:8200\n",
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(b *bench) {
				b.vault.CreateKey("other")
				m, credential := b.appRole(vaulttest.TokenOptions{TTL: time.Hour, Rules: vaulttest.TransitPolicy("transit", "kek", "other")})
				b.deliver("provider: vault\nvault:\n  keynames: [kek]\n  address: http://vault:8200\n  associatedData: cluster-1\n  " + credential + "\n")
				keyID := b.roundTrip()
				logins, calls := m.Logins(), b.vault.Total()
				b.deliver("provider: vault\nvault:\n  " + lines + "  " + credential + "\n")
				if got := b.vault.Total() - calls; got != 0 {
					t.Errorf("%d calls", got)
				}
				b.after(20 * time.Minute)
				if got := m.Logins() - logins; got != 0 {
					t.Errorf("%d logins", got)
				}
				if times, problem := b.logged(notUsed); times != 1 {
					t.Errorf("logged %d times: %s", times, problem)
				}
				b.wantStatus(keyID, "")
			})
		})
	}
}

// TestEveryKeyIsProven checks keys that only decrypt: what Vault would deny is found before it is needed. A key that
// does not exist is no reason to refuse the others.
func TestEveryKeyIsProven(t *testing.T) {
	run(t, func(b *bench) {
		b.vault.CreateKey("old")
		all := b.vault.KMSToken("kek", "old", "gone")
		b.load(settings{keys: []string{"kek", "old"}, token: all})
		b.load(settings{keys: []string{"kek", "old"}, token: b.vault.KMSToken("kek")})
		if times, problem := b.logged(notUsed); times != 1 || !strings.Contains(problem, `its policy lacks "update" on transit/decrypt/old`) {
			t.Errorf("logged %d times: %s", times, problem)
		}
		b.load(settings{keys: []string{"kek", "old", "gone"}, token: all})
		if times, problem := b.logged("key in keynames cannot decrypt"); times != 1 || !strings.Contains(problem, "the key does not exist") {
			t.Errorf("warned %d times: %s", times, problem)
		}
		if got := b.metric("trousseau_generation"); got != 2 {
			t.Errorf("generation = %v, want 2", got)
		}
	})
}

// TestTokenThatMayCreateKeys checks the warning, and that a mistyped name creates nothing all the same.
func TestTokenThatMayCreateKeys(t *testing.T) {
	const warning = "Vault token may create keys; a mistyped key name would create one"
	run(t, func(b *bench) {
		b.load(settings{})
		if times, _ := b.logged(warning); times != 0 {
			t.Error("warned of a token that may not")
		}
		rules := vaulttest.TransitPolicy("transit", "kek", "typo")
		for path := range rules {
			if strings.Contains(path, "/encrypt/") {
				rules[path] = []string{"create", "update"}
			}
		}
		token := b.vault.CreateToken(vaulttest.TokenOptions{Rules: rules}).ID
		b.load(settings{token: token})
		if times, _ := b.logged(warning); times != 1 {
			t.Errorf("warned %d times, want once", times)
		}
		b.load(settings{token: token, keys: []string{"typo", "kek"}})
		if times, problem := b.logged(notUsed); times != 1 || !strings.Contains(problem, "decrypting with transit/typo at http://vault:8200: the key does not exist") {
			t.Errorf("logged %d times: %s", times, problem)
		}
		if got := b.vault.Count(vaulttest.OpEncrypt); got != 2 {
			t.Errorf("%d calls to encrypt, want one for each adoption", got)
		}
	})
}

// TestKeyThatCannotEncryptForUs checks that the log and the requests name the key's type or settings as the reason,
// whether or not the key may be read.
func TestKeyThatCannotEncryptForUs(t *testing.T) {
	for name, options := range map[string]vaulttest.KeyOptions{
		"rsa-2048":   {Type: "rsa-2048"},
		"ecdsa-p256": {Type: "ecdsa-p256"},
		"ed25519":    {Type: "ed25519"},
		"hmac":       {Type: "hmac"},
		"derived":    {Derived: true},
		"convergent": {Derived: true, Convergent: true},
	} {
		for _, readable := range []bool{true, false} {
			if name == "rsa-2048" && !readable {
				continue // it encrypts, and only the key itself tells that it is of this type
			}
			t.Run(fmt.Sprintf("%s, readable %v", name, readable), func(t *testing.T) {
				run(t, func(b *bench) {
					b.key.Delete()
					b.vault.CreateKeyWith("kek", options)
					b.load(b.severalNodes(1, readable))
					_, problem := b.logged(notYet)
					want := "create a key of type aes256-gcm96, not derived"
					if !strings.Contains(problem, want) {
						t.Errorf("the log says %q, want %q", problem, want)
					}
					ctx, cancel := b.request()
					defer cancel()
					_, err := b.Encrypt(ctx, []byte("seed"))
					if fault.ClassOf(err) != fault.KeyUnusable || !strings.Contains(err.Error(), want) {
						t.Errorf("Encrypt: %v, want class %s", err, fault.KeyUnusable)
					}
				})
			})
		}
	}
}

// TestKeyRecreatedWithAnotherType checks that a key in use of which only the name is left is lost.
func TestKeyRecreatedWithAnotherType(t *testing.T) {
	for _, options := range []vaulttest.KeyOptions{{Type: "rsa-2048"}, {Type: "ecdsa-p256"}, {Derived: true}, {Type: "chacha20-poly1305"}} {
		run(t, func(b *bench) {
			b.load(settings{})
			b.key.Delete()
			b.vault.CreateKeyWith("kek", options)
			b.after(2 * probeInterval)
			if got := b.state(); got != "lost" {
				t.Errorf("%+v: the state is %s, want lost: %v", options, got, b.Degraded())
			}
		})
	}
}

func TestSoftDeletedKeyIsLost(t *testing.T) {
	run(t, func(b *bench) {
		b.load(settings{})
		b.key.SetSoftDeleted(true)
		b.after(2 * probeInterval)
		if got := b.state(); got != "lost" {
			t.Errorf("the state is %s, want lost: %v", got, b.Degraded())
		}
		b.key.SetSoftDeleted(false)
		b.after(15 * time.Second)
		b.wantStatus(b.roundTrip(), "")
	})
}

// TestRequestEndsThePause checks that the first request after a long outage at the start succeeds: kube-apiserver would
// list again only after up to a minute.
func TestRequestEndsThePause(t *testing.T) {
	run(t, func(b *bench) {
		b.vault.Seal()
		b.load(settings{})
		b.after(10 * time.Minute)
		b.vault.Unseal()
		ctx, cancel := b.request()
		defer cancel()
		began := time.Now()
		_, err := b.Encrypt(ctx, []byte("seed"))
		if took := time.Since(began); err != nil || took > time.Second {
			t.Errorf("the first request took %s: %v", took, err)
		}
	})
}

// TestRequestsWithoutAGeneration checks that a request waits as long as its deadline allows, and then says why it fails,
// and that requests make no more attempts than the shortest pause allows.
func TestRequestsWithoutAGeneration(t *testing.T) {
	run(t, func(b *bench) {
		b.vault.Seal()
		b.load(settings{})
		const during, every = 20 * time.Second, 10 * time.Millisecond
		for began := time.Now(); time.Since(began) < during; time.Sleep(every) {
			go func() {
				ctx, cancel := b.request()
				defer cancel()
				began := time.Now()
				_, err := b.Encrypt(ctx, []byte("seed"))
				if took := time.Since(began); fault.ClassOf(err) != fault.Sealed || took < requestTimeout/2 || took >= requestTimeout {
					t.Errorf("after %s: %v", took, err)
				}
			}()
		}
		b.after(requestTimeout)
		attempts := b.vault.Count(vaulttest.OpReadKey)
		if most := int(during/(500*time.Millisecond)) + 5; attempts < most/2 || attempts > most {
			t.Errorf("%d attempts in %s, want about two each second", attempts, during)
		}
	})
}

// TestRequestsDoNotEndAPatientPause checks that requests neither hasten the next login after a refused one, nor keep a
// Vault that has come back from being noticed.
func TestRequestsDoNotEndAPatientPause(t *testing.T) {
	run(t, func(b *bench) {
		_, credential := b.appRole(vaulttest.TokenOptions{TTL: time.Hour})
		refuse := b.vault.Inject(vaulttest.Fault{
			Match: vaulttest.Ops(vaulttest.OpLogin), Status: 400, Body: `{"errors":["invalid role or secret ID"]}`,
		})
		b.loadWith(credential)
		keepAsking := func(d time.Duration) (last error) {
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Second) {
				ctx, cancel := b.request()
				_, last = b.Encrypt(ctx, []byte("seed"))
				cancel()
			}
			return last
		}
		if err := keepAsking(10 * time.Minute); err == nil {
			t.Error("a request succeeded without a login")
		}
		if got := b.vault.Count(vaulttest.OpLogin); got != 1 {
			t.Errorf("%d logins in the pause", got)
		}
		refuse()
		b.vault.Seal()
		_ = keepAsking(time.Minute)
		b.vault.Unseal()
		if err := keepAsking(time.Minute); err != nil {
			t.Errorf("a minute after Vault is back: %v", err)
		}
	})
}
