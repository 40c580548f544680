// SPDX-License-Identifier: Apache-2.0

package doctor_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/internal/ctl/doctor"
	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

// situation is one fault and the complete expected findings.
type situation struct {
	name   string
	broken func(*scene)
	want   []string
}

// keyIs changes fields of Vault's answer about the key.
func keyIs(s *scene, replaced ...string) {
	text := `{"data":{"type":"aes256-gcm96","derived":false,"exportable":false,"allow_plaintext_backup":false,` +
		`"deletion_allowed":false,"auto_rotate_period":0,"latest_version":1,"min_decryption_version":1,` +
		`"min_encryption_version":0,"supports_encryption":true,"keys":{"1":` + fmt.Sprint(time.Now().Unix()) + `}}}`
	s.vault.Inject(vaulttest.Fault{
		Match: vaulttest.Ops(vaulttest.OpReadKey), Status: http.StatusOK, Body: strings.NewReplacer(replaced...).Replace(text),
	})
}

// tokenIs adds fields to Vault's answer about the token.
func tokenIs(s *scene, fields string) {
	s.vault.Inject(vaulttest.Fault{Match: vaulttest.Ops(vaulttest.OpLookupSelf), Status: http.StatusOK,
		Body: `{"data":{"type":"service","policies":["kms"],"expire_time":null,"ttl":0,` + fields + `}}`})
}

// isBatch matches the calls of an operation that have batch_input.
func isBatch(op string) func(string, *http.Request) bool {
	return func(asked string, r *http.Request) bool {
		body, err := io.ReadAll(r.Body)
		return err == nil && asked == op && strings.Contains(string(body), `"batch_input"`)
	}
}

const createFix = "Check keynames, transitPath and namespace. Create the key with vault write -f transit/keys/kek, but not if a key of this name has encrypted data: restore that key."

const policyFix = "Give it only the policy that trousseauctl policy prints, and no other that matches these paths."

// vaultSituations are faults in config.yaml, Vault or the key.
var vaultSituations = []situation{
	{"no config", func(s *scene) { s.o.Config = s.dir + "/none.yaml" }, []string{
		"fail config DIR/none.yaml: the file does not exist | Give its path with --config, or check that Vault Agent runs and may write it. For a pod, run doctor in its container."}},
	{"mistake in config", func(s *scene) { s.lines = "  tokn: x\n" }, []string{
		"fail config DIR/config.yaml: line 7: …"}},
	{"file for all", func(s *scene) { s.fileMode = 0o644 }, []string{
		`fail file-mode DIR/config.yaml: anyone can read the secret in it: 0644 of ME | Set mode 0600: chmod 0600, and perms = "0600" in the agent's template.`}},
	{"file for a group", func(s *scene) { s.fileMode = 0o640 }, []string{
		`warn file-mode DIR/config.yaml: its group can read the secret in it: 0640 of ME | Set mode 0600: chmod 0600, and perms = "0600" in the agent's template.`}},
	{"file that all write", func(s *scene) { s.fileMode = 0o602 }, []string{
		`fail file-mode DIR/config.yaml: anyone can write to it: 0602 of ME | Set mode 0600: chmod 0600, and perms = "0600" in the agent's template.`}},
	{"directory that all write", func(s *scene) { s.dirMode = 0o777 }, []string{
		`fail file-mode DIR/config.yaml: anyone can replace it: its directory has mode 0777 | Remove that right: chmod o-w on the directory.`,
		`fail file-mode DIR/ca.crt: anyone can replace it: its directory has mode 0777 | Remove that right: chmod o-w on the directory.`}},

	{"no such host", func(s *scene) { s.address = "https://vault.invalid:8200" }, []string{
		"fail vault-dns https://vault.invalid:8200: vault.invalid: …"}},
	{"no server at the port", func(s *scene) {
		s.address, s.substitute = "https://127.0.0.1:1", []string{"https://127.0.0.1:1", "VAULT"}
	}, []string{
		"fail vault-tcp VAULT: connection refused | Check that Vault runs there and listens on this port, and that no firewall blocks it."}},
	{"certificate of a stranger", func(s *scene) { s.caCert = "" }, []string{
		"fail vault-tls VAULT: the certificate is signed by an unknown authority | Add the certificate of the CA that issued it to the file of vault.vaultCACert."}},
	{"certificate for another", func(s *scene) { s.serve(certificate(s.t, 90*24*time.Hour, "vault.example")) }, []string{
		"fail vault-tls VAULT: the certificate is for vault.example, not for 127.0.0.1 | Set vault.tlsServerName to one of the certificate's names, or issue Vault a certificate with this name."}},
	{"certificate over", func(s *scene) { s.serve(certificate(s.t, -time.Hour, "127.0.0.1")) }, []string{
		"fail vault-tls VAULT: the certificate is valid from …"}},
	{"certificate nearly over", func(s *scene) { s.serve(certificate(s.t, 49*time.Hour, "127.0.0.1")) }, []string{
		"warn vault-tls VAULT: the certificate expires in 2 days, …"}},
	{"certificate of the CA nearly over", func(s *scene) { s.serve(issued(s.t, certificate(s.t, 49*time.Hour, "ca.example"))) }, []string{
		`warn vault-tls VAULT: the certificate of its issuer "test CA" expires in 2 days, …`}},
	{"no TLS", func(s *scene) {
		s.address = "https://" + s.vault.Addr()
		s.substitute = []string{s.vault.Addr(), "PLAIN"}
	}, []string{
		"fail vault-tls https://PLAIN: what listens there does not speak TLS | Use the port on which Vault speaks TLS, or write http:// if you mean that."}},
	{"not Vault", func(s *scene) {
		other := httptest.NewServer(http.NotFoundHandler())
		s.t.Cleanup(other.Close)
		s.address, s.caCert, s.substitute = other.URL, "", []string{other.URL, "OTHER"}
	}, []string{
		"fail vault-health OTHER: asking for sys/health at OTHER: … | Check what listens at this address, and whether it requires a client certificate."}},
	{"sealed", func(s *scene) { s.vault.Seal() }, []string{
		"fail vault-health VAULT: Vault 1.21.0 is sealed | Unseal it: vault operator unseal."}},
	{"not initialized", func(s *scene) { s.vault.SetInitialized(false) }, []string{
		"fail vault-health VAULT: Vault 1.21.0 is not initialized | Initialize it: vault operator init."}},
	{"clock", func(s *scene) { s.vault.Advance(-10 * time.Minute) }, []string{
		"warn vault-clock VAULT: this host's clock differs from Vault's by 10m…"}},
	{"one of two addresses", func(s *scene) {
		s.lines = "  addresses: [https://127.0.0.1:1]\n"
	}, []string{
		"fail vault-tcp https://127.0.0.1:1: connection refused | Check that Vault runs there and listens on this port, and that no firewall blocks it."}},
	{"DR secondary", func(s *scene) { s.vault.SetDRSecondary(true) }, []string{
		"fail vault-health VAULT: Vault 1.21.0 is a disaster recovery secondary, which serves no requests | Write the address of the primary cluster. This one serves only after it was promoted."}},
	{"the first of two addresses is sealed", func(s *scene) {
		s.join(vaulttest.Options{Join: s.vault})
		s.vault.Seal()
	}, []string{
		"fail vault-health VAULT: Vault 1.21.0 is sealed | Unseal it: vault operator unseal."}},
	{"the second address is another Vault's", func(s *scene) {
		s.join().CreateKey(keyName)
	}, []string{
		"fail token SECOND: Vault denies it every call: …"}},
	{"the second address does not encrypt", func(s *scene) {
		s.join(vaulttest.Options{Join: s.vault}).Inject(vaulttest.Fault{Match: vaulttest.Ops(vaulttest.OpDecrypt), Status: http.StatusInternalServerError})
	}, []string{
		"fail round-trip SECOND: decrypting with transit/kek at SECOND: vault answered 500 Internal Server Error | Correct what the error names, and read Vault's log."}},
	{"the second address has no key", func(s *scene) {
		node := s.join(vaulttest.Options{Join: s.vault})
		node.Inject(vaulttest.Fault{Match: vaulttest.Ops(vaulttest.OpReadKey), Status: http.StatusNotFound, Body: `{"errors":[]}`})
		s.t.Cleanup(func() {
			if n := node.Count(vaulttest.OpEncrypt); n > 0 {
				s.t.Errorf("%d seeds were encrypted there, which may create the key", n)
			}
		})
	}, []string{
		"fail round-trip SECOND: not encrypted, because the key kek does not exist there | " + createFix}},

	{"wrong secret ID", func(s *scene) {
		role := s.vault.EnableAppRole("", "approle").SetRole("trousseau", vaulttest.TokenOptions{})
		s.method = "  roleID: " + role + "\n  secretID: 6f2b7c1e-0000-4000-8000-000000000000\n"
	}, []string{
		"fail login: logging in … | Check the role and its bindings, and that the secret ID is still valid."}},
	{"wrong secret ID, two addresses", func(s *scene) {
		role := s.vault.EnableAppRole("", "approle").SetRole("trousseau", vaulttest.TokenOptions{})
		s.method = "  roleID: " + role + "\n  secretID: 6f2b7c1e-0000-4000-8000-000000000000\n"
		node := s.join(vaulttest.Options{Join: s.vault})
		s.t.Cleanup(func() {
			// Vault locks a role after a few refused logins.
			if n := s.vault.Count(vaulttest.OpLogin) + node.Count(vaulttest.OpLogin); n != 1 {
				s.t.Errorf("%d logins, want 1", n)
			}
		})
	}, []string{
		"fail login: logging in through auth/approle/login at VAULT: …"}},
	{"login at the second address", func(s *scene) {
		auth := s.vault.EnableAppRole("", "approle")
		role := auth.SetRole("trousseau", vaulttest.TokenOptions{Rules: s.rules, Period: time.Hour})
		s.method = "  roleID: " + role + "\n  secretID: " + auth.NewSecretID("trousseau") + "\n"
		s.join(vaulttest.Options{Join: s.vault})
		s.vault.Seal()
		s.t.Cleanup(func() {
			if s.vault.Count(vaulttest.OpLogin) > 0 {
				s.t.Error("a login at the sealed node")
			}
			if n := len(auth.Tokens()); n > 0 {
				s.t.Errorf("%d tokens are left", n)
			}
		})
	}, []string{
		"fail vault-health VAULT: Vault 1.21.0 is sealed | Unseal it: vault operator unseal."}},
	{"token revoked", func(s *scene) {
		s.configure()
		s.vault.Revoke(s.token)
	}, []string{
		"fail token VAULT: Vault denies it every call: it is expired or revoked, is bound to other networks, or has no policy for trousseau | Issue a new token. If this one is still valid, give it the policy that trousseauctl policy prints, and check that this host is in its bound_cidrs."}},
	{"token that may not look itself up", func(s *scene) {
		s.options.NoDefaultPolicy = true
		delete(s.rules, "auth/token/lookup-self")
	}, []string{
		`warn token VAULT: Vault accepts it, but it may not look itself up: its lifetime and policies are unknown | Let its policy read auth/token/lookup-self; the policy "default" does.`}},
	{"token that may only encrypt and decrypt", func(s *scene) {
		s.options.NoDefaultPolicy = true
		s.rules = vaulttest.Rules{"transit/encrypt/kek": {"update"}, "transit/decrypt/kek": {"update"}}
	}, []string{
		"warn token VAULT: Vault accepts it, …",
		"warn policy: the token's permissions are unknown: …",
		"warn key kek: it exists, but the token may not read it: its settings are unknown | Let its policy read transit/keys/kek."}},
	{"token that may only read the key", func(s *scene) {
		s.options.NoDefaultPolicy = true
		s.rules = vaulttest.Rules{"transit/keys/kek": {"read"}}
	}, []string{
		"warn token VAULT: Vault accepts it, …",
		"warn policy: the token's permissions are unknown: …",
		"fail round-trip VAULT: encrypting with transit/kek at VAULT: permission denied (403): …"}},
	{"token that may do nothing here", func(s *scene) {
		s.options.NoDefaultPolicy = true
		s.rules = vaulttest.Rules{"transit/keys/other": {"read"}}
	}, []string{
		"fail token VAULT: Vault denies it every call: …"}},
	{"token for other networks", func(s *scene) { tokenIs(s, `"bound_cidrs":["10.0.0.0/24","127.0.0.1"]`) }, []string{
		"warn token-networks: Vault accepts it only from 10.0.0.0/24, 127.0.0.1 | Check that every node that uses this configuration has an address in them."}},
	{"batch token", func(s *scene) {
		s.options = vaulttest.TokenOptions{Orphan: true, Type: vaulttest.Batch, TTL: 73 * time.Hour}
	}, []string{
		"warn token-life: it expires in 3 days and cannot be renewed | …"}},
	{"token of few uses, two addresses", func(s *scene) {
		s.options.NumUses = 8
		s.join(vaulttest.Options{Join: s.vault})
	}, []string{
		"fail token VAULT: it is valid for 7 calls more, then never again | …"}},
	{"wrapping token that nothing tells", func(s *scene) {
		s.vault.Inject(vaulttest.Fault{Match: vaulttest.Ops(vaulttest.OpWrappingLookup), Status: http.StatusForbidden, Body: "<html>"})
	}, []string{
		"fail token VAULT: not used, because it could be a response-wrapping token, which has one use: asking whether it is a wrapping token at VAULT: …"}},
	{"token of few uses", func(s *scene) { s.options.NumUses = 8 }, []string{
		"fail token VAULT: it is valid for 7 calls more, then never again | Issue a token without num_uses: each call of trousseau and of doctor uses one up."}},
	{"token that dies", func(s *scene) {
		s.options = vaulttest.TokenOptions{Orphan: true, TTL: 73 * time.Hour, NotRenewable: true}
	}, []string{
		"warn token-life: it expires in 3 days and cannot be renewed | Issue one that is renewable and has a period: vault token create -orphan -period=…; or make sure that a new one is written in time."}},
	{"token with a maximum", func(s *scene) { s.options.ExplicitMaxTTL = 73 * time.Hour }, []string{
		"warn token-life: 3 days left; trousseau renews it, up to its maximum of 3 days in all | Make sure that a new one is written in time, or issue one without explicit_max_ttl."}},
	{"token without period", func(s *scene) { s.options = vaulttest.TokenOptions{Orphan: true, TTL: 73 * time.Hour} }, []string{
		"warn token-life: 3 days left; trousseau renews it, up to Vault's maximum TTL: it has no period | Issue one with a period, or make sure that a new one is written in time."}},
	{"root token", func(s *scene) { s.token = s.vault.RootToken() }, []string{
		"warn token-policies: it is a root token, which may do everything | Issue a token that has only the policy that trousseauctl policy prints.",
		"warn policy-excess: it may do more than trousseau needs: root on transit/keys/kek; …"}},
	{"capabilities not known", func(s *scene) {
		delete(s.rules, "sys/capabilities-self")
		s.options.NoDefaultPolicy = true
	}, []string{
		`warn policy: the token's permissions are unknown: asking for the token's capabilities at VAULT: permission denied (403): … | Let its policy update sys/capabilities-self; the policy "default" does.`}},
	{"no encrypt", func(s *scene) { delete(s.rules, "transit/encrypt/kek") }, []string{
		`fail policy-needs transit/encrypt/kek: update is not allowed: no new seed can be encrypted | Add to its policy: path "transit/encrypt/kek" { capabilities = ["update"] }`}},
	{"no decrypt", func(s *scene) { delete(s.rules, "transit/decrypt/kek") }, []string{
		`fail policy-needs transit/decrypt/kek: update is not allowed: seeds encrypted by this key cannot be decrypted | Add to its policy: path "transit/decrypt/kek" { capabilities = ["update"] }`}},
	{"key not to be read", func(s *scene) { delete(s.rules, "transit/keys/kek") }, []string{
		`warn policy-needs transit/keys/kek: read is not allowed: a deleted and recreated key cannot be distinguished from its predecessor | Add to its policy: path "transit/keys/kek" { capabilities = ["read"] }`,
		`warn key kek: it exists, but the token may not read it: its settings are unknown | Let its policy read transit/keys/kek.`}},
	{"no renewal", func(s *scene) {
		delete(s.rules, "auth/token/renew-self")
		s.options.NoDefaultPolicy = true
	}, []string{
		`warn policy-needs auth/token/renew-self: update is not allowed: trousseau cannot renew its token | Add to its policy: path "auth/token/renew-self" { capabilities = ["update"] }`}},
	{"too much", func(s *scene) {
		s.rules["transit/keys/kek"] = []string{"read", "delete"}
		s.rules["transit/keys/kek/rotate"] = []string{"update"}
		s.rules["transit/export/encryption-key/kek"] = []string{"read"}
		s.rules["transit/keys"] = []string{"list"}
	}, []string{
		"warn policy-excess: it may do more than trousseau needs: delete on transit/keys/kek; update on transit/keys/kek/rotate; read on transit/export/encryption-key/kek; list on transit/keys | " + policyFix}},

	{"read on everything below keys", func(s *scene) { s.rules["transit/keys/*"] = []string{"read"} }, nil},

	{"no key", func(s *scene) { s.key.Delete() }, []string{
		"fail key kek: reading key transit/kek at VAULT: … (404) | " + createFix}},
	{"no transit engine", func(s *scene) {
		s.lines = "  transitPath: none\n"
		s.rules = vaulttest.TransitPolicy("none", keyName)
	}, []string{
		"fail key kek: reading key none/kek at VAULT: nothing is mounted at this path (404); check the address, namespace and mount | Check transitPath and namespace, and read Vault's log."}},
	{"no key, and none may be read", func(s *scene) {
		s.key.Delete()
		delete(s.rules, "transit/keys/kek")
	}, []string{
		`warn policy-needs transit/keys/kek: read is not allowed: …`,
		"fail key kek: it does not exist: Vault has no key to decrypt with | " + createFix}},
	{"key that signs", func(s *scene) {
		keyIs(s, "aes256-gcm96", "ed25519", `supports_encryption":true`, `supports_encryption":false`)
	}, []string{
		"fail key kek: a key of type ed25519 is not for seeds | Create a key of type aes256-gcm96, and list it in keynames."}},
	{"derived key", func(s *scene) { keyIs(s, `derived":false`, `derived":true`) }, []string{
		"fail key kek: it is a derived key: each call would need a context, which trousseau does not send | Create a key with derived=false, and list it in keynames."}},
	{"exportable key", func(s *scene) { keyIs(s, `exportable":false`, `exportable":true`) }, []string{
		"warn key-settings kek: exportable: anyone who may read export/ can take the key | This cannot be undone: create another key, put it first in keynames, and re-encrypt everything."}},
	{"plaintext backup", func(s *scene) { keyIs(s, `backup":false`, `backup":true`) }, []string{
		"warn key-settings kek: allow_plaintext_backup: anyone who may read backup/ can take the key | This cannot be undone: create another key, put it first in keynames, and re-encrypt everything."}},
	{"deletion allowed", func(s *scene) { keyIs(s, `deletion_allowed":false`, `deletion_allowed":true`) }, []string{
		"warn key-settings kek: deletion_allowed: if the key is deleted, everything it encrypted is lost | Forbid it: vault write transit/keys/kek/config deletion_allowed=false"}},
	{"old versions out of use", func(s *scene) {
		s.key.Rotate()
		s.key.SetMinDecryptionVersion(2)
	}, []string{
		"warn key-versions kek: min_decryption_version is 2: data encrypted by older versions cannot be read | Check with trousseauctl audit that nothing in etcd needs an older version. If something does: vault write transit/keys/kek/config min_decryption_version=1"}},
	{"old key", func(s *scene) {
		keyIs(s, fmt.Sprint(time.Now().Unix())[:6], fmt.Sprint(time.Now().Unix() - 400*86400)[:6])
	}, []string{
		"warn key-versions kek: version 1 is …"}},
	{"old key that only decrypts", func(s *scene) {
		s.rules = vaulttest.TransitPolicy("transit", keyName, "older")
		s.keys = keyName + ", older"
		s.vault.Advance(-400 * 24 * time.Hour)
		s.vault.CreateKey("older")
		s.vault.Advance(400 * 24 * time.Hour)
	}, nil},
	{"second key that does not decrypt, capabilities not known", func(s *scene) {
		s.vault.CreateKey("older")
		s.rules["transit/keys/older"] = []string{"read"}
		s.rules["auth/token/lookup-self"] = []string{"read"}
		s.options.NoDefaultPolicy = true
		delete(s.rules, "sys/capabilities-self")
		s.keys = keyName + ", older"
	}, []string{
		"warn policy: …",
		"fail round-trip VAULT: decrypting with transit/older at VAULT: permission denied (403): …"}},
	{"Vault does not encrypt", func(s *scene) {
		s.vault.Inject(vaulttest.Fault{Match: vaulttest.Ops(vaulttest.OpEncrypt), Status: http.StatusInternalServerError})
	}, []string{
		"fail round-trip VAULT: encrypting with transit/kek at VAULT: vault answered 500 Internal Server Error | Correct what the error names, and read Vault's log."}},
	{"batches denied", func(s *scene) {
		s.vault.Inject(vaulttest.Fault{Match: isBatch(vaulttest.OpEncrypt), Status: http.StatusForbidden, Body: `{"errors":["permission denied"]}`})
	}, []string{
		"warn batches VAULT: single calls are allowed, batches are not: under load, requests go to Vault one by one: encrypting with transit/kek at VAULT: permission denied (403): …"}},
	{"batches refused for decrypt", func(s *scene) {
		s.vault.Inject(vaulttest.Fault{Match: isBatch(vaulttest.OpDecrypt), Status: http.StatusRequestEntityTooLarge, Body: "<html>"})
	}, []string{
		"warn batches VAULT: single calls are allowed, batches are not: under load, requests go to Vault one by one: decrypting with transit/kek at VAULT: " +
			"the answer is not Vault's: 413 Request Entity Too Large; check for a proxy, a firewall or another server at this address | " +
			"Allow the parameter batch_input in every policy of the token, and bodies of 1 MiB in what is before Vault."}},
	{"batches end in an error", func(s *scene) {
		s.vault.Inject(vaulttest.Fault{Match: isBatch(vaulttest.OpDecrypt), Status: http.StatusInternalServerError})
	}, []string{
		"fail batches VAULT: decrypting with transit/kek at VAULT: vault answered 500 Internal Server Error | Correct what the error names, and read Vault's log."}},
	{"an item of a batch fails", func(s *scene) {
		s.vault.Inject(vaulttest.Fault{Match: isBatch(vaulttest.OpEncrypt), Status: http.StatusBadRequest,
			Body: `{"data":{"batch_results":[{"ciphertext":"vault:v1:AAAA"},{"error":"no such key version"}]}}`})
	}, []string{
		"fail batches VAULT: encrypting with transit/kek at VAULT: the key no longer has this version; restore it from a backup | Correct what the error names, and read Vault's log."}},
	{"items mixed up", func(s *scene) {
		s.vault.Inject(vaulttest.Fault{Match: isBatch(vaulttest.OpDecrypt), Status: http.StatusOK,
			Body: `{"data":{"batch_results":[{"plaintext":"c2Vjb25k"},{"plaintext":"Zmlyc3Q="}]}}`})
	}, []string{
		"fail batches VAULT: decrypting gave other bytes than were encrypted | Check what is between this host and Vault."}},
	{"slow", func(s *scene) { s.o.RequestTimeout = time.Nanosecond }, []string{
		"warn round-trip VAULT: one call took …"}},
}

// TestVaultSituations breaks one thing at a time: doctor must find that and nothing
// else.
func TestVaultSituations(t *testing.T) {
	for _, c := range vaultSituations {
		t.Run(c.name, func(t *testing.T) {
			s := newScene(t)
			c.broken(s)
			s.configure()
			found, r := s.examine()
			mustFind(t, found, c.want)
			if failed := strings.Contains(strings.Join(c.want, "\n"), "fail "); (r.Failed > 0) != failed {
				t.Errorf("%d failed", r.Failed)
			}
		})
	}
}

// TestHealth gives each status of sys/health with the body that Vault 1.21 sends with it:
// a node that serves does not fail, and every other one fails for its own reason.
func TestHealth(t *testing.T) {
	const serves = ""
	for status, c := range map[int]struct{ fields, want string }{
		200: {``, serves},
		429: {`"standby":true,"ha_connection_healthy":true,"removed_from_cluster":false`, serves},
		472: {`"standby":true,"replication_dr_mode":"secondary"`, "is a disaster recovery secondary, …| Write the address of the primary cluster. …"},
		473: {`"standby":true,"performance_standby":true`, serves},
		474: {`"standby":true,"ha_connection_healthy":false`, "is a standby that does not reach the active node, …| Check that an active node runs, …"},
		501: {`"initialized":false,"sealed":true,"standby":true`, "is not initialized | Initialize it: …"},
		503: {`"sealed":true,"standby":true`, "is sealed | Unseal it: …"},
		530: {`"sealed":true,"standby":true,"removed_from_cluster":true`, "was removed from its cluster, …| Remove this address from config.yaml; …"},
	} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			s := newScene(t)
			body := `{"initialized":true,"sealed":false,"version":"1.21.0","enterprise":true`
			if c.fields != "" {
				body += "," + c.fields // the last of two fields with one name counts
			}
			s.vault.Inject(vaulttest.Fault{Match: vaulttest.Ops(vaulttest.OpHealth), Status: status, Body: body + "}"})
			s.configure()
			found, _ := s.examine()
			var want []string
			if c.want != serves {
				want = []string{"fail vault-health VAULT: Vault Enterprise 1.21.0 " + c.want}
			}
			mustFind(t, found, want)
		})
	}
}

// TestWrappedSecrets checks that a response-wrapping token in place of a token or of a
// secret ID is named, and keeps its one use.
func TestWrappedSecrets(t *testing.T) {
	for name, test := range map[string]struct{ method, want string }{
		"token":     {"  token: TOKEN\n", "fail token VAULT: it is a response-wrapping token, not a token for trousseau | Unwrap it …"},
		"secret ID": {"  roleID: trousseau\n  secretID: TOKEN\n", "fail login: the secret ID is a response-wrapping token, not a secret ID | Unwrap it …"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			s.token = s.vault.CreateToken(vaulttest.TokenOptions{
				Policies: []string{vaulttest.WrappingPolicy}, NoDefaultPolicy: true, NumUses: 1, TTL: time.Hour,
			}).ID
			s.method = strings.Replace(test.method, "TOKEN", s.token, 1)
			s.vault.Inject(vaulttest.Fault{Handle: func(op string, _ http.ResponseWriter, r *http.Request) bool {
				if r.Header.Get("X-Vault-Token") != "" {
					t.Errorf("%s has the token in its header", op)
				}
				return false
			}})
			s.configure()
			found, _ := s.examine()
			mustFind(t, found, []string{test.want})
			if !s.vault.TokenAlive(s.token) {
				t.Error("its one use is spent")
			}
		})
	}
}

// TestNoKeyIsCreated covers policies with create, as in many tutorials, under which
// Vault creates missing keys. A mistyped name must not create a key.
func TestNoKeyIsCreated(t *testing.T) {
	create := []string{"create", "update"}
	tests := map[string]struct {
		rules vaulttest.Rules
		bare  bool // without the policy default
		want  []string
	}{
		"the key may not be read": {vaulttest.Rules{"transit/encrypt/*": create, "transit/decrypt/*": {"update"}}, false, []string{
			"warn policy-needs transit/keys/kek: read is not allowed: …",
			"warn policy-excess: it may do more than trousseau needs: create on transit/encrypt/kek | …",
			"fail key kek: it does not exist: Vault has no key to decrypt with | " + createFix}},
		"nothing else is allowed": {vaulttest.Rules{"transit/encrypt/*": create, "transit/decrypt/*": {"update"}}, true, []string{
			"warn token VAULT: …",
			"warn policy: …",
			"fail key kek: it does not exist: Vault has no key to decrypt with | " + createFix}},
		"not even to decrypt": {vaulttest.Rules{"transit/encrypt/*": create, "auth/token/lookup-self": {"read"}}, true, []string{
			"warn policy: …",
			"warn key kek: the token may not read it: whether it exists is unknown | Let its policy read transit/keys/kek.",
			"fail round-trip VAULT: not encrypted, because that could create the key: decrypting with transit/kek at VAULT: permission denied (403): …"}},
		"all is allowed": {vaulttest.Rules{"transit/*": {"create", "read", "update"}}, false, []string{
			"warn policy-excess: …",
			"fail key kek: reading key transit/kek at VAULT: … | " + createFix}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			s.key.Delete()
			s.rules, s.options.NoDefaultPolicy = test.rules, test.bare
			s.configure()
			found, _ := s.examine()
			mustFind(t, found, test.want)
			if s.key.Exists() {
				t.Error("doctor has created the key")
			}
		})
	}
}

// TestSkipped checks the reason for a skipped check.
func TestSkipped(t *testing.T) {
	s := newScene(t)
	s.address = "https://127.0.0.1:1"
	s.configure()
	_, r := s.examine()
	skipped := 0
	for _, f := range r.Checks {
		if f.Result != doctor.Skip {
			continue
		}
		skipped++
		if want := "not checked: depends on vault-tcp " + s.address; f.Seen != want {
			t.Errorf("%s: %s, want %s", f.Name, f.Seen, want)
		}
	}
	if skipped < 12 || skipped != r.Skipped {
		t.Errorf("%d are skipped, and the report says %d", skipped, r.Skipped)
	}
}

// TestTimeout checks that doctor ends before a Vault that does not answer.
func TestTimeout(t *testing.T) {
	s := newScene(t)
	s.vault.Inject(vaulttest.Fault{Hang: true})
	s.lines = "  addresses: [https://127.0.0.1:1]\n"
	s.configure()
	s.o.Timeout = step - time.Second
	found, r := s.examine()
	mustFind(t, found, []string{
		"fail vault-health VAULT: asking for sys/health at VAULT: … | Check what listens at this address, and whether it requires a client certificate.",
		"fail vault-dns https://127.0.0.1:1: not checked: the time is up | Raise --timeout, and see above which check took so long.",
	})
	if r.Failed == 0 {
		t.Error("nothing failed")
	}
}

// step bounds one check.
const step = 5 * time.Second

// TestLoginIsGivenBack checks that no token is left.
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
