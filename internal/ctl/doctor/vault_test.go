// SPDX-License-Identifier: Apache-2.0

package doctor_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/internal/ctl/doctor"
	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

// situation is one thing that is wrong, and all that is to be found then.
type situation struct {
	name   string
	broken func(*scene)
	want   []string
}

// keyIs lets Vault say something else of the key: field by field, over what it
// says of one that is all right.
func keyIs(s *scene, replaced ...string) {
	text := `{"data":{"type":"aes256-gcm96","derived":false,"exportable":false,"allow_plaintext_backup":false,` +
		`"deletion_allowed":false,"auto_rotate_period":0,"latest_version":1,"min_decryption_version":1,` +
		`"min_encryption_version":0,"supports_encryption":true,"keys":{"1":` + fmt.Sprint(time.Now().Unix()) + `}}}`
	s.vault.Inject(vaulttest.Fault{
		Match: vaulttest.Ops(vaulttest.OpReadKey), Status: http.StatusOK, Body: strings.NewReplacer(replaced...).Replace(text),
	})
}

const policyFix = "Give it the policy that trousseauctl policy prints, and no other that reaches these paths."

// vaultSituations are wrong between config.yaml and the key.
var vaultSituations = []situation{
	{"no config", func(s *scene) { s.o.Config = s.dir + "/none.yaml" }, []string{
		"fail config DIR/none.yaml: there is no such file | Give its path with --config, or see whether Vault Agent runs and may write there."}},
	{"mistake in config", func(s *scene) { s.lines = "  tokn: x\n" }, []string{
		"fail config DIR/config.yaml: line 7: …"}},
	{"file for all", func(s *scene) { s.fileMode = 0o644 }, []string{
		`fail file-mode DIR/config.yaml: everybody can read the secret in it: 0644 of ME | Make it 0600: chmod 0600, and perms = "0600" in the agent's template.`}},
	{"file for a group", func(s *scene) { s.fileMode = 0o640 }, []string{
		`warn file-mode DIR/config.yaml: its group can read the secret in it: 0640 of ME | Make it 0600: chmod 0600, and perms = "0600" in the agent's template.`}},
	{"file that all write", func(s *scene) { s.fileMode = 0o602 }, []string{
		`fail file-mode DIR/config.yaml: everybody can write it: 0602 of ME | Make it 0600: chmod 0600, and perms = "0600" in the agent's template.`}},
	{"directory that all write", func(s *scene) { s.dirMode = 0o777 }, []string{
		`fail file-mode DIR/config.yaml: everybody can replace it: its directory is 0777 | Take that away: chmod o-w on the directory.`,
		`fail file-mode DIR/ca.crt: everybody can replace it: its directory is 0777 | Take that away: chmod o-w on the directory.`}},

	{"no such host", func(s *scene) { s.address = "https://vault.invalid:8200" }, []string{
		"fail vault-dns https://vault.invalid:8200: vault.invalid: …"}},
	{"nobody at the port", func(s *scene) {
		s.address, s.substitute = "https://127.0.0.1:1", []string{"https://127.0.0.1:1", "VAULT"}
	}, []string{
		"fail vault-tcp VAULT: connection refused | See whether Vault runs there and listens at this port, and a firewall between."}},
	{"certificate of a stranger", func(s *scene) { s.caCert = "" }, []string{
		"fail vault-tls VAULT: nobody that is trusted has issued the certificate | Put the certificate of the CA that issued it into the file of vault.vaultCACert."}},
	{"certificate for another", func(s *scene) { s.serve(certificate(s.t, 90*24*time.Hour, "vault.example")) }, []string{
		"fail vault-tls VAULT: the certificate is not for 127.0.0.1, but for vault.example | Write vault.tlsServerName, one of the names that it has, or put this one into Vault's certificate."}},
	{"certificate over", func(s *scene) { s.serve(certificate(s.t, -time.Hour, "127.0.0.1")) }, []string{
		"fail vault-tls VAULT: the certificate is valid from …"}},
	{"certificate nearly over", func(s *scene) { s.serve(certificate(s.t, 49*time.Hour, "127.0.0.1")) }, []string{
		"warn vault-tls VAULT: the certificate ends in 2 days, …"}},
	{"certificate of the CA nearly over", func(s *scene) { s.serve(issued(s.t, certificate(s.t, 49*time.Hour, "ca.example"))) }, []string{
		`warn vault-tls VAULT: the certificate of its issuer "test CA" ends in 2 days, …`}},
	{"no TLS", func(s *scene) {
		s.address = "https://" + s.vault.Addr()
		s.substitute = []string{s.vault.Addr(), "PLAIN"}
	}, []string{
		"fail vault-tls https://PLAIN: what listens there does not speak TLS | Write http:// if that is meant, or the port on which Vault speaks TLS."}},
	{"not Vault", func(s *scene) {
		other := httptest.NewServer(http.NotFoundHandler())
		s.t.Cleanup(other.Close)
		s.address, s.caCert, s.substitute = other.URL, "", []string{other.URL, "OTHER"}
	}, []string{
		"fail vault-health OTHER: sys/health: 404 Not Found | See what listens at this address, and whether it asks for a client certificate."}},
	{"sealed", func(s *scene) { s.vault.Seal() }, []string{
		"fail vault-health VAULT: Vault 1.21.0 is sealed | Unseal it: vault operator unseal."}},
	{"not initialized", func(s *scene) { s.vault.SetInitialized(false) }, []string{
		"fail vault-health VAULT: Vault 1.21.0 is not initialized | Initialize it: vault operator init."}},
	{"clock", func(s *scene) { s.date = time.Now().Add(-10 * time.Minute) }, []string{
		"warn vault-clock VAULT: this host's clock differs from Vault's by 10m…"}},
	{"one of two addresses", func(s *scene) {
		s.lines = "  addresses: [https://127.0.0.1:1]\n"
	}, []string{
		"fail vault-tcp https://127.0.0.1:1: connection refused | See whether Vault runs there and listens at this port, and a firewall between."}},

	{"wrong secret ID", func(s *scene) {
		role := s.vault.EnableAppRole("", "approle").SetRole("trousseau", vaulttest.TokenOptions{})
		s.method = "  roleID: " + role + "\n  secretID: 6f2b7c1e-0000-4000-8000-000000000000\n"
	}, []string{
		"fail login: auth/approle/login: 400 Bad Request | See the role and what it is bound to, and whether the secret ID is still valid."}},
	{"token revoked", func(s *scene) {
		s.configure()
		s.vault.Revoke(s.token)
	}, []string{
		"fail token: Vault does not know the token, or it may not look itself up (403) | Write a new one, or see that its policies let it read auth/token/lookup-self: default does."}},
	{"token of few uses", func(s *scene) { s.options.NumUses = 8 }, []string{
		"fail token: the token is good for 7 calls, and then no more | Make a token without num_uses: each call of trousseau, and this one, uses it up."}},
	{"token that dies", func(s *scene) {
		s.options = vaulttest.TokenOptions{Orphan: true, TTL: 73 * time.Hour, NotRenewable: true}
	}, []string{
		"warn token-life: it dies in 3 days, and cannot be renewed | Make it renewable, with a period: vault token create -orphan -period=…; or see that somebody writes a new one in time."}},
	{"token with a maximum", func(s *scene) { s.options.ExplicitMaxTTL = 73 * time.Hour }, []string{
		"warn token-life: 3 days left; trousseau renews it, but not for longer than 3 days in all | See that somebody writes a new one in time, or make one without explicit_max_ttl."}},
	{"token without period", func(s *scene) { s.options = vaulttest.TokenOptions{Orphan: true, TTL: 73 * time.Hour} }, []string{
		"warn token-life: 3 days left; trousseau renews it, but no longer than Vault's maximum TTL: it has no period | Make one with a period, or see that somebody writes a new one in time."}},
	{"root token", func(s *scene) { s.token = s.vault.RootToken() }, []string{
		"warn token-policies: it is a root token, which may do everything | Make a token of the policy trousseau alone: trousseauctl policy prints it.",
		"warn policy-excess: it may do more than trousseau needs: root on transit/keys/kek; …"}},
	{"capabilities not known", func(s *scene) {
		delete(s.rules, "sys/capabilities-self")
		s.options.NoDefaultPolicy = true
	}, []string{
		"warn policy: what it may do is not known: permission denied (403) | Let its policy update sys/capabilities-self: default does."}},
	{"no encrypt", func(s *scene) { delete(s.rules, "transit/encrypt/kek") }, []string{
		`fail policy-needs transit/encrypt/kek: it may not: no new seed can be encrypted | Add to its policy: path "transit/encrypt/kek" { capabilities = ["update"] }`}},
	{"no decrypt", func(s *scene) { delete(s.rules, "transit/decrypt/kek") }, []string{
		`fail policy-needs transit/decrypt/kek: it may not: what this key has encrypted cannot be read | Add to its policy: path "transit/decrypt/kek" { capabilities = ["update"] }`}},
	{"key not to be read", func(s *scene) { delete(s.rules, "transit/keys/kek") }, []string{
		`warn policy-needs transit/keys/kek: it may not: a key that was deleted and made anew is not told from the one before | Add to its policy: path "transit/keys/kek" { capabilities = ["read"] }`,
		`warn key kek: it may not be read (403) | Let its policy read transit/keys/kek, so that this can look at it.`}},
	{"no renewal", func(s *scene) {
		delete(s.rules, "auth/token/renew-self")
		s.options.NoDefaultPolicy = true
	}, []string{
		`warn policy-needs auth/token/renew-self: it may not: trousseau cannot keep its token alive | Add to its policy: path "auth/token/renew-self" { capabilities = ["update"] }`}},
	{"too much", func(s *scene) {
		s.rules["transit/keys/kek"] = []string{"read", "delete"}
		s.rules["transit/keys/kek/rotate"] = []string{"update"}
		s.rules["transit/export/encryption-key/kek"] = []string{"read"}
		s.rules["transit/keys"] = []string{"list"}
	}, []string{
		"warn policy-excess: it may do more than trousseau needs: delete on transit/keys/kek; update on transit/keys/kek/rotate; read on transit/export/encryption-key/kek; list on transit/keys | " + policyFix}},

	{"no key", func(s *scene) { s.key.Delete() }, []string{
		"fail key kek: there is none at transit/keys/kek (404) | See keynames, transitPath and namespace; make it with vault write -f transit/keys/kek, unless there is data that one of this name has encrypted."}},
	{"key that signs", func(s *scene) {
		keyIs(s, "aes256-gcm96", "ed25519", `supports_encryption":true`, `supports_encryption":false`)
	}, []string{
		"fail key kek: it is of type ed25519, which cannot encrypt seeds | Make another one, of type aes256-gcm96, and put it into keynames."}},
	{"derived key", func(s *scene) { keyIs(s, `derived":false`, `derived":true`) }, []string{
		"fail key kek: it is derived: each call would need a context, which trousseau has not | Make another one, with derived=false, and put it into keynames."}},
	{"exportable key", func(s *scene) { keyIs(s, `exportable":false`, `exportable":true`) }, []string{
		"warn key-settings kek: exportable: whoever may read export/ has it | That cannot be undone: make another key, put it first in keynames, and have everything encrypted anew."}},
	{"plaintext backup", func(s *scene) { keyIs(s, `backup":false`, `backup":true`) }, []string{
		"warn key-settings kek: allow_plaintext_backup: whoever may read backup/ has it | That cannot be undone: make another key, put it first in keynames, and have everything encrypted anew."}},
	{"deletion allowed", func(s *scene) { keyIs(s, `deletion_allowed":false`, `deletion_allowed":true`) }, []string{
		"warn key-settings kek: deletion_allowed: with it goes everything that it encrypted | Forbid it: vault write transit/keys/kek/config deletion_allowed=false"}},
	{"old versions out of use", func(s *scene) {
		s.key.Rotate()
		s.key.SetMinDecryptionVersion(2)
	}, []string{
		"warn key-versions kek: min_decryption_version is 2: what older versions have encrypted cannot be read | See with trousseauctl audit that nothing in etcd is under an older one; otherwise vault write transit/keys/kek/config min_decryption_version=1"}},
	{"old key", func(s *scene) {
		keyIs(s, fmt.Sprint(time.Now().Unix())[:6], fmt.Sprint(time.Now().Unix() - 400*86400)[:6])
	}, []string{
		"warn key-versions kek: version 1 is …"}},
	{"Vault does not encrypt", func(s *scene) {
		s.vault.Inject(vaulttest.Fault{Match: vaulttest.Ops(vaulttest.OpEncrypt), Status: http.StatusInternalServerError})
	}, []string{
		"fail round-trip kek: encrypting with transit/kek at VAULT: vault answered 500 Internal Server Error | See what it says, and Vault's log."}},
	{"slow", func(s *scene) { s.o.RequestTimeout = time.Nanosecond }, []string{
		"warn round-trip kek: one call took …"}},
}

// TestVaultSituations breaks one thing at a time: that is found, and nothing
// else.
func TestVaultSituations(t *testing.T) {
	for _, c := range vaultSituations {
		t.Run(c.name, func(t *testing.T) {
			s := newScene(t)
			c.broken(s)
			s.configure()
			found, r := s.examine()
			mustFind(t, found, c.want)
			if failed := strings.Contains(strings.Join(c.want, "\n"), "fail "); r.Healthy == failed {
				t.Errorf("healthy is %t", r.Healthy)
			}
		})
	}
}

// TestSkipped says on what it depends that something is not looked at.
func TestSkipped(t *testing.T) {
	s := newScene(t)
	s.address = "https://127.0.0.1:1"
	s.configure()
	_, r := s.examine()
	skipped := 0
	for _, f := range r.Findings {
		if f.Result != doctor.Skip {
			continue
		}
		skipped++
		if want := "not looked at, because of vault-tcp " + s.address; f.Seen != want {
			t.Errorf("%s: %s, want %s", f.Check, f.Seen, want)
		}
	}
	if skipped < 12 || skipped != r.Skipped {
		t.Errorf("%d are skipped, and the report says %d", skipped, r.Skipped)
	}
}

// TestTimeout is over before a Vault that does not answer has done so.
func TestTimeout(t *testing.T) {
	s := newScene(t)
	s.vault.Inject(vaulttest.Fault{Hang: true})
	s.lines = "  addresses: [https://127.0.0.1:1]\n"
	s.configure()
	s.o.Timeout = step - time.Second
	found, r := s.examine()
	mustFind(t, found, []string{
		"fail vault-health VAULT: sys/health: no answer in time | See what listens at this address, and whether it asks for a client certificate.",
		"fail vault-dns https://127.0.0.1:1: not looked at: the time was over | Give it more time with --timeout, and see above what took so long.",
	})
	if r.Healthy {
		t.Error("it is healthy")
	}
}

// step is what one check may take.
const step = 5 * time.Second

// TestLoginIsGivenBack leaves no token behind.
func TestLoginIsGivenBack(t *testing.T) {
	s := newScene(t)
	auth := s.vault.EnableAppRole("", "approle")
	role := auth.SetRole("trousseau", vaulttest.TokenOptions{Rules: s.rules, TTL: time.Hour})
	s.method = "  roleID: " + role + "\n  secretID: " + auth.NewSecretID("trousseau") + "\n"
	s.configure()
	before := len(s.vault.Tokens())
	found, _ := s.examine()
	mustFind(t, found, nil)
	if after := len(s.vault.Tokens()); after != before {
		t.Errorf("%d tokens, want %d as before", after, before)
	}
	if _, err := os.Stat(s.file); err != nil {
		t.Error(err)
	}
}
