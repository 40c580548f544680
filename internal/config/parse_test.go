// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/trousseau-io/trousseau/internal/config"
)

// asVaultAgentRendersIt is the output of the original Trousseau's Vault Agent template, with every trailing space.
const asVaultAgentRendersIt = "\n" +
	"--- \n" +
	"provider: vault\n" +
	"vault:\n" +
	"  keynames:\n" +
	"  - trousseau-kms-vault \n" +
	"  address: http://vault.example:8200 \n" +
	"  token: hvs.abc \n"

// TestParse has one row for each way to write a valid file.
func TestParse(t *testing.T) {
	files := newFiles(t)
	rendered := config.Vault{
		Address:     "http://vault.example:8200",
		TransitPath: "transit",
		KeyNames:    []string{"trousseau-kms-vault"},
		Credential:  config.Credential{Method: config.TokenGiven, Token: config.NewSecret("hvs.abc")},
	}
	with := func(change func(*config.Vault)) config.Vault {
		v := rendered
		change(&v)
		return v
	}
	withToken := func(token string) config.Vault {
		return with(func(v *config.Vault) { v.Credential.Token = config.NewSecret(token) })
	}
	withCredential := func(c config.Credential) config.Vault {
		return with(func(v *config.Vault) { v.Credential = c })
	}
	inNamespaces := func(namespace, auth string) config.Vault {
		return with(func(v *config.Vault) { v.Namespace, v.Credential.Namespace = namespace, auth })
	}
	appRole := config.Credential{
		Method: config.AppRole, Path: "approle", RoleID: "2f7a", SecretID: config.NewSecret("geheim"),
	}
	withAddress := func(address string) config.Vault {
		return with(func(v *config.Vault) { v.Address = address })
	}
	// token and address replace one line of the rendered file.
	token := func(line string) string {
		return strings.Replace(asVaultAgentRendersIt, "  token: hvs.abc \n", line, 1)
	}
	address := func(value string) string {
		return strings.Replace(asVaultAgentRendersIt, "http://vault.example:8200", value, 1)
	}
	https := address("https://vault.example:8200")
	tests := []struct {
		name string
		data string
		want config.Vault
	}{
		{"as Vault Agent renders it", asVaultAgentRendersIt, rendered},
		{"CRLF", strings.ReplaceAll(asVaultAgentRendersIt, "\n", "\r\n"), rendered},
		{"one blank of indentation", "\n--- \nprovider: vault\nvault:\n keynames:\n - trousseau-kms-vault \n" +
			" address: http://vault.example:8200 \n token: hvs.abc \n", rendered},
		{"no newline at the end", strings.TrimRight(asVaultAgentRendersIt, "\n "), rendered},
		{"end of document marked", asVaultAgentRendersIt + "...\n# end\n", rendered},
		{"byte order mark", "\ufeff" + asVaultAgentRendersIt, rendered},
		{"camel case", strings.Replace(asVaultAgentRendersIt, "keynames", "keyNames", 1), rendered},
		{"capitals", strings.NewReplacer("provider:", "PROVIDER:", "vault:\n", "VAULT:\n", "keynames", "KEYNAMES",
			"address", "Address", "token", "TOKEN").Replace(asVaultAgentRendersIt), rendered},
		{"no provider", strings.Replace(asVaultAgentRendersIt, "provider: vault\n", "", 1), rendered},
		{"comments", "# written by Vault Agent\n" + token("  token: hvs.abc # do not share\n"), rendered},
		{"flow style", `{provider: vault, vault: {keynames: [trousseau-kms-vault], ` +
			`address: "http://vault.example:8200", token: hvs.abc}}`, rendered},
		{"quotes", strings.NewReplacer("hvs.abc", `"hvs.abc"`, "trousseau-kms-vault", `'trousseau-kms-vault'`,
			"http://vault.example:8200", `"http://vault.example:8200"`).Replace(asVaultAgentRendersIt), rendered},
		{"blanks inside quotes", token("  token: ' hvs.abc '\n"), rendered},
		{"newline from the KV secret", token("  token: |\n    hvs.abc\n"), rendered},
		{"tagged as text", token("  token: !!str hvs.abc\n"), rendered},

		{"number for a token", token("  token: 0123_456\n"), withToken("0123_456")},
		{"float for a token", token("  token: 1e3\n"), withToken("1e3")},
		{"boolean for a token", token("  token: yes\n"), withToken("yes")},
		{"date for a token", token("  token: 2001-01-01\n"), withToken("2001-01-01")},
		{"quoted null for a token", token("  token: 'null'\n"), withToken("null")},
		{"sign of a comment in a token", token("  token: a#b\n"), withToken("a#b")},
		{"token in a file", token("  tokenFile: /etc/trousseau/token\n"), withToken(fileToken)},

		{"address with a slash", address("http://vault.example:8200/"), rendered},
		{"address without port", address("http://vault.example"), withAddress("http://vault.example")},
		{"address in capitals", address("HTTPS://vault.example"), withAddress("https://vault.example")},
		{"IPv4 address", address("http://127.0.0.1:8200"), withAddress("http://127.0.0.1:8200")},
		{"IPv6 address", address("http://[::1]:8200"), withAddress("http://[::1]:8200")},

		{"further addresses", https + "  addresses:\n  - https://vault-2.example:8200/ \n  - HTTPS://vault.example\n",
			with(func(v *config.Vault) {
				v.Address = "https://vault.example:8200"
				v.Addresses = []string{"https://vault-2.example:8200", "https://vault.example"}
			})},
		{"further address before the first", strings.Replace(asVaultAgentRendersIt, "  address:",
			"  Addresses: [http://127.0.0.1:8200]\n  address:", 1),
			with(func(v *config.Vault) { v.Addresses = []string{"http://127.0.0.1:8200"} })},

		{"several keys", strings.Replace(asVaultAgentRendersIt, "- trousseau-kms-vault", "- new\n  - old.1\n  - _", 1),
			with(func(v *config.Vault) { v.KeyNames = []string{"new", "old.1", "_"} })},
		{"number for a key", strings.Replace(asVaultAgentRendersIt, "- trousseau-kms-vault", "- 007", 1),
			with(func(v *config.Vault) { v.KeyNames = []string{"007"} })},
		{"longest names", strings.Replace(asVaultAgentRendersIt, "trousseau-kms-vault", strings.Repeat("k", 256), 1) +
			"  namespace: " + strings.Repeat("n", 256) + "\n  transitPath: " + strings.Repeat("t", 256) + "\n",
			with(func(v *config.Vault) {
				v.KeyNames = []string{strings.Repeat("k", 256)}
				v.Namespace, v.TransitPath = strings.Repeat("n", 256), strings.Repeat("t", 256)
				v.Credential.Namespace = v.Namespace
			})},
		{"namespace and mount", asVaultAgentRendersIt + "  namespace: /team/a/\n  transitPath: /team/transit/\n",
			with(func(v *config.Vault) {
				v.Namespace, v.TransitPath, v.Credential.Namespace = "team/a", "team/transit", "team/a"
			})},

		{"AppRole", token("  roleID: 2f7a\n  secretID: geheim\n"), withCredential(appRole)},
		{"AppRole in another order and case", token("  SecretId: geheim\n  ROLEID: 2f7a\n"), withCredential(appRole)},
		{"blank in a secret ID", token("  roleID: 2f7a\n  secretID: ganz geheim\n"),
			withCredential(config.Credential{Method: config.AppRole, Path: "approle", RoleID: "2f7a",
				SecretID: config.NewSecret("ganz geheim")})},
		{"secret ID in a file, mounted elsewhere", token("  roleID: 2f7a\n  secretIDFile: /etc/trousseau/secret-id\n" +
			"  authPath: /team/approle/\n"),
			withCredential(config.Credential{Method: config.AppRole, Path: "team/approle", RoleID: "2f7a",
				SecretID: config.NewSecret(fileSecretID)})},
		{"Kubernetes", token("  kubernetes:\n    role: trousseau\n"),
			withCredential(config.Credential{Method: config.Kubernetes, Path: "kubernetes", Role: "trousseau",
				JWT: config.NewSecret(podJWT)})},
		{"Kubernetes with another token", token("  Kubernetes: {ROLE: trousseau, TokenFile: /etc/trousseau/jwt}\n" +
			"  authPath: cluster-a\n"),
			withCredential(config.Credential{Method: config.Kubernetes, Path: "cluster-a", Role: "trousseau",
				JWT: config.NewSecret(fileJWT)})},
		{"JWT", token("  jwt:\n    tokenFile: /etc/trousseau/jwt\n    role: trousseau\n"),
			withCredential(config.Credential{Method: config.JWT, Path: "jwt", Role: "trousseau",
				JWT: config.NewSecret(fileJWT)})},
		{"JWT for the default role", token("  jwt:\n    tokenFile: /etc/trousseau/jwt\n"),
			withCredential(config.Credential{Method: config.JWT, Path: "jwt", JWT: config.NewSecret(fileJWT)})},
		{"certificate", strings.Replace(https, "  token: hvs.abc \n",
			"  clientCert: /etc/trousseau/client.pem\n  clientKey: /etc/trousseau/client-key.pem\n", 1),
			with(func(v *config.Vault) {
				v.Address = "https://vault.example:8200"
				v.Credential = config.Credential{Method: config.Certificate, Path: "cert"}
				v.ClientCert, v.ClientKey = files[etc+"client.pem"], config.NewSecret(string(files[etc+"client-key.pem"]))
			})},
		{"certificate beside an AppRole", strings.Replace(https, "  token: hvs.abc \n",
			"  clientCert: /etc/trousseau/client.pem\n  clientKey: /etc/trousseau/client-key.pem\n"+
				"  roleID: 2f7a\n  secretID: geheim\n", 1),
			with(func(v *config.Vault) {
				v.Address, v.Credential = "https://vault.example:8200", appRole
				v.ClientCert, v.ClientKey = files[etc+"client.pem"], config.NewSecret(string(files[etc+"client-key.pem"]))
			})},
		{"API proxy", token("  apiProxy: true\n"), withCredential(config.Credential{Method: config.Proxied})},
		{"API proxy in a namespace", token("  apiProxy: \"True\"\n  namespace: team\n"),
			with(func(v *config.Vault) {
				v.Namespace, v.Credential = "team", config.Credential{Method: config.Proxied, Namespace: "team"}
			})},
		{"no API proxy", asVaultAgentRendersIt + "  apiProxy: FALSE\n", rendered},

		{"token of another namespace", asVaultAgentRendersIt + "  namespace: team/a\n  authNamespace: /team/\n",
			inNamespaces("team/a", "team")},
		{"token of a namespace for the root one", asVaultAgentRendersIt + "  authNamespace: team\n",
			inNamespaces("", "team")},

		{"associated data", asVaultAgentRendersIt + "  associatedData: cluster a, ü \n",
			with(func(v *config.Vault) { v.AssociatedData = "cluster a, ü" })},
		{"longest associated data", asVaultAgentRendersIt + "  associatedData: " + strings.Repeat("a", 256) + "\n",
			with(func(v *config.Vault) { v.AssociatedData = strings.Repeat("a", 256) })},
		{"associated data that looks like a placeholder", asVaultAgentRendersIt + "  associatedData: <cluster>\n",
			with(func(v *config.Vault) { v.AssociatedData = "<cluster>" })},
		{"number for associated data", asVaultAgentRendersIt + "  associatedData: 007\n",
			with(func(v *config.Vault) { v.AssociatedData = "007" })},
		{"associated data required", asVaultAgentRendersIt + "  requireAssociatedData: true\n  associatedData: a\n",
			with(func(v *config.Vault) { v.AssociatedData, v.RequireAssociatedData = "a", true })},
		{"bare key_ids accepted", asVaultAgentRendersIt + "  acceptbarekeyids: TRUE\n",
			with(func(v *config.Vault) { v.AcceptBareKeyIDs = true })},
		{"bare key_ids not accepted", asVaultAgentRendersIt + "  acceptBareKeyIDs: false\n  associatedData: a\n",
			with(func(v *config.Vault) { v.AssociatedData = "a" })},
		{"associated data not required", asVaultAgentRendersIt + "  requireAssociatedData: false\n", rendered},

		{"authority", https + "  vaultCACert: /etc/trousseau/ca.pem\n  tlsServerName: vault.example\n",
			with(func(v *config.Vault) {
				v.Address = "https://vault.example:8200"
				v.CACert, v.TLSServerName = files[etc+"ca.pem"], "vault.example"
			})},
		{"authorities beside text and a key", https + "  vaultCACert: /etc/trousseau/ca-and-more\n  tlsServerName: '::1'\n",
			with(func(v *config.Vault) {
				v.Address = "https://vault.example:8200"
				v.CACert, v.TLSServerName = join(files[etc+"ca.pem"], files[etc+"client.pem"]), "::1"
			})},
		{"client certificate", https +
			"  clientCert: /etc/trousseau/client.pem\n  clientKey: /etc/trousseau/client-key.pem\n",
			with(func(v *config.Vault) {
				v.Address = "https://vault.example:8200"
				v.ClientCert, v.ClientKey = files[etc+"client.pem"], config.NewSecret(string(files[etc+"client-key.pem"]))
			})},
		{"client key after other blocks", https +
			"  clientCert: /etc/trousseau/client.pem\n  clientKey: /etc/trousseau/client-sec1.pem\n",
			with(func(v *config.Vault) {
				v.Address = "https://vault.example:8200"
				v.ClientCert = files[etc+"client.pem"]
				v.ClientKey = config.NewSecret(strings.TrimPrefix(string(files[etc+"client-sec1.pem"]), parameters))
			})},
		{"RSA", https + "  clientCert: /etc/trousseau/rsa.pem\n  clientKey: /etc/trousseau/rsa-key.pem\n",
			with(func(v *config.Vault) {
				v.Address = "https://vault.example:8200"
				v.ClientCert, v.ClientKey = files[etc+"rsa.pem"], config.NewSecret(string(files[etc+"rsa-key.pem"]))
			})},
		{"client certificate and key in one file", https +
			"  clientCert: /etc/trousseau/client-and-key.pem\n  clientKey: /etc/trousseau/client-and-key.pem\n",
			with(func(v *config.Vault) {
				v.Address = "https://vault.example:8200"
				v.ClientCert, v.ClientKey = files[etc+"client.pem"], config.NewSecret(string(files[etc+"client-key.pem"]))
			})},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := config.Parse([]byte(tt.data), files.Open)
			if err != nil {
				t.Fatalf("refused: %v\n%s", err, tt.data)
			}
			if got, want := plain(got.Vault), plain(tt.want); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

// plain spells out every field, including secrets, so that two configurations can be compared.
func plain(v any) string {
	var b strings.Builder
	for field, value := range reflect.ValueOf(v).Fields() {
		switch value := value.Interface().(type) {
		case config.Secret:
			fmt.Fprintf(&b, "%s:%q ", field.Name, value.Reveal())
		case config.Credential:
			fmt.Fprintf(&b, "%s:{%s} ", field.Name, plain(value))
		case bool:
			fmt.Fprintf(&b, "%s:%t ", field.Name, value)
		default:
			fmt.Fprintf(&b, "%s:%q ", field.Name, value)
		}
	}
	return b.String()
}

// TestParseRefuses reads testdata/bad, which has a file and the exact error text for each mistake.
func TestParseRefuses(t *testing.T) {
	files := newFiles(t)
	archives, err := filepath.Glob("testdata/bad/*.txtar")
	if err != nil || len(archives) == 0 {
		t.Fatalf("no archives in testdata/bad: %v", err)
	}
	for _, name := range archives {
		for mistake, file := range badFiles(t, name) {
			t.Run(filepath.Base(name)+"/"+mistake, func(t *testing.T) {
				got := problems(t, file.data, files)
				if want := strings.TrimSpace(file.want); strings.Join(got, "\n") != want {
					t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), want)
				}
			})
		}
	}
}

type badFile struct {
	data []byte
	want string
}

// badFiles returns the files of an archive: name of the mistake → file.
func badFiles(t testing.TB, name string) map[string]badFile {
	t.Helper()
	archive, err := txtar.ParseFile(name)
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]badFile)
	for i := 0; i < len(archive.Files); i += 2 {
		mistake, isYAML := strings.CutSuffix(archive.Files[i].Name, ".yaml")
		if !isYAML || i+1 == len(archive.Files) || archive.Files[i+1].Name != mistake+".want" {
			t.Fatalf("%s: %s is not followed by its .want", name, archive.Files[i].Name)
		}
		if _, twice := found[mistake]; twice {
			t.Fatalf("%s: duplicate %s", name, mistake)
		}
		found[mistake] = badFile{archive.Files[i].Data, string(archive.Files[i+1].Data)}
	}
	return found
}

// problems returns the errors of Parse for data, one text for each problem.
func problems(t *testing.T, data []byte, f files) (texts []string) {
	t.Helper()
	_, err := config.Parse(data, f.Open)
	if err == nil {
		t.Fatalf("accepted:\n%s", data)
	}
	var refused *config.Error
	if !errors.As(err, &refused) {
		t.Fatalf("got error type %T, want *config.Error", err)
	}
	for _, p := range refused.Problems {
		texts = append(texts, p.String())
	}
	if got, want := err.Error(), strings.Join(texts, "; "); len(texts) <= 20 && got != want {
		t.Errorf("got error text %q, want %q", got, want)
	}
	return texts
}

// TestParseRefusesBytes covers mistakes that an archive of text files cannot contain.
func TestParseRefusesBytes(t *testing.T) {
	const notText = "the file is not text: this line contains a byte that is not printable UTF-8"
	const notYAML = `not valid YAML; write name: "value", indented with spaces, not tabs, and check that the file is complete`
	const tooLong = "the value (not shown, it has 257 bytes) is too long; the maximum is 256 bytes"
	long := strings.Repeat("n", 257)
	replace := func(old, with string) string { return strings.Replace(asVaultAgentRendersIt, old, with, 1) }
	tests := []struct{ name, data, want string }{
		{"too large", asVaultAgentRendersIt + "#" + strings.Repeat(" ", config.MaxSize),
			"the file is larger than 1 MiB; it cannot be a Trousseau configuration"},
		{"NUL", replace("hvs.abc", "hvs.\x00abc"), "line 8: " + notText},
		{"invalid UTF-8", replace("hvs.abc", "hvs.\xffabc"), "line 8: " + notText},
		{"escape character", replace("hvs.abc", "\x1b[1mhvs.abc"), "line 8: " + notText},
		{"UTF-16", "\xff\xfev\x00a\x00", "line 1: " + notText},
		{"control character of Unicode", replace("hvs.abc", "hvs.\u0080abc"), "line 8: " + notYAML},
		{"mistake after CRLF", "vault:\r\n  token: hvs.abc\r\n  'address: x\r\n", "line 3: " + notYAML},
		{"mistake in the only line", "vault: token: hvs.abc", "line 1: " + notYAML},
		{"mistake in a file too large to look for it", "vault:\n  'token: " + strings.Repeat("x", 64<<10), notYAML},
		{"nesting without end", strings.Repeat("[", 20_000), "line 1: " + notYAML},
		{"long key name", replace("trousseau-kms-vault", long), "line 6: vault.keynames[0]: " + tooLong},
		{"long namespace", asVaultAgentRendersIt + "  namespace: " + long, "line 9: vault.namespace: " + tooLong},
		{"long login namespace", asVaultAgentRendersIt + "  authNamespace: " + long,
			"line 9: vault.authNamespace: " + tooLong},
		{"long role ID", replace("token: hvs.abc", "roleID: "+long+"\n  secretID: geheim"),
			"line 8: vault.roleID: " + tooLong},
		{"long role", replace("token: hvs.abc", "kubernetes: {role: "+long+"}"), "line 8: vault.kubernetes.role: " + tooLong},
		{"long associated data", asVaultAgentRendersIt + "  associatedData: " + long,
			"line 9: vault.associatedData: the value (not shown, it has 257 bytes) is too long; the maximum is 256 bytes"},
		{"long mount", asVaultAgentRendersIt + "  transitPath: " + long, "line 9: vault.transitPath: " + tooLong},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := strings.Join(problems(t, []byte(tt.data), files{serviceAccount: []byte(podJWT)}), "\n"); got != tt.want {
				t.Errorf("got:\n%s\nwant:\n%s", got, tt.want)
			}
		})
	}
}

// TestParseNamesOpenersError checks that an operator sees the open function's own error text, which may differ from
// the operating system's.
func TestParseNamesOpenersError(t *testing.T) {
	data := strings.Replace(asVaultAgentRendersIt, "token: hvs.abc", "tokenFile: /etc/trousseau/token", 1)
	_, err := config.Parse([]byte(data), func(string) ([]byte, error) { return nil, errors.New("not looked at yet") })
	want := `line 8: vault.tokenFile: reading "/etc/trousseau/token": not looked at yet`
	if err == nil || err.Error() != want {
		t.Errorf("got error %v, want %s", err, want)
	}
}

// TestParseWithoutServiceAccount checks that Kubernetes' default token file may be missing.
func TestParseWithoutServiceAccount(t *testing.T) {
	data := strings.Replace(asVaultAgentRendersIt, "token: hvs.abc", "kubernetes: {role: trousseau}", 1)
	got := problems(t, []byte(data), files{})
	want := `line 8: vault.kubernetes.tokenFile: reading "` + serviceAccount + `": no such file or directory`
	if len(got) != 1 || got[0] != want {
		t.Errorf("got %q, want %s", got, want)
	}
}

// TestErrorTextIsBounded parses a file with many mistakes: all are reported, but the text for the log is short.
func TestErrorTextIsBounded(t *testing.T) {
	data := asVaultAgentRendersIt + strings.Repeat("  colour: red\n", 1000)
	_, err := config.Parse([]byte(data), nil)
	refused, ok := errors.AsType[*config.Error](err)
	if !ok {
		t.Fatalf("got error %v, want *config.Error", err)
	}
	if got := len(refused.Problems); got != 1000 {
		t.Errorf("got %d problems, want 1000", got)
	}
	if got := err.Error(); !strings.HasSuffix(got, "; and 980 more") || strings.Count(got, "colour") != 20 {
		t.Errorf("got error text of %d bytes, want 20 problems and the number of the others", len(got))
	}
}

// TestParseWithoutOpener reads real files.
func TestParseWithoutOpener(t *testing.T) {
	name := filepath.Join(t.TempDir(), "token")
	write(t, name, []byte(fileToken))
	data := strings.Replace(asVaultAgentRendersIt, "token: hvs.abc", "tokenFile: "+name, 1)
	got, err := config.Parse([]byte(data), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := got.Vault.Credential.Token.Reveal(); got != fileToken {
		t.Errorf("got token %q, want the one in the file", got)
	}
}
