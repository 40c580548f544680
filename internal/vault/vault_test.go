// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/internal/fault"
	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
	"github.com/trousseau-io/trousseau/internal/vault"
)

// TestMain sets an environment that would break every call if it were used. It is set first because net/http reads
// the proxy variables only once.
func TestMain(m *testing.M) {
	for name, value := range map[string]string{
		"VAULT_ADDR": nowhere, "VAULT_TOKEN": "hvs.environment", "VAULT_NAMESPACE": "environment",
		"VAULT_MAX_RETRIES": "5", "VAULT_CACERT": "/nonexistent",
		"HTTP_PROXY": nowhere, "HTTPS_PROXY": nowhere, "http_proxy": nowhere, "https_proxy": nowhere,
		"NO_PROXY": "", "no_proxy": "",
	} {
		if err := os.Setenv(name, value); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// nowhere is an address without a listener: port 1 is privileged and unused.
const nowhere = "http://127.0.0.1:1"

// dial returns a client of the server's default transit engine; change may be nil.
func dial(t testing.TB, s *vaulttest.Server, change func(*vault.Config)) *vault.Client {
	t.Helper()
	cfg := vault.Config{
		Addresses: []string{s.URL()}, Mount: "transit", Credential: vault.Given(s.KMSToken("kek")),
		CACert: s.CAPEM(), ClientCert: s.ClientCertPEM(), ClientKey: s.ClientKeyPEM(),
	}
	if change != nil {
		change(&cfg)
	}
	nodes, err := vault.Dial(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nodes[0].Close)
	return nodes[0]
}

// bounded returns a context that ends a hanging test.
func bounded(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

var localPort = regexp.MustCompile(`127\.0\.0\.1:\d+->`)

// wantError checks the class and text of an error. In text, ADDRESS stands for the client's address and HOST for
// its host and port; LOCAL is the client's own port, chosen by the kernel.
func wantError(t *testing.T, c *vault.Client, err error, class fault.Class, text string) {
	t.Helper()
	wantErrorAt(t, c.Address(), err, class, text)
}

// wantErrorAt is wantError for a client with several addresses.
func wantErrorAt(t *testing.T, address string, err error, class fault.Class, text string) {
	t.Helper()
	var e *fault.Error
	if !errors.As(err, &e) {
		t.Fatalf("got %T %v, want a *fault.Error", err, err)
	}
	if e.Class != class {
		t.Errorf("class: got %q, want %q", e.Class, class)
	}
	_, host, _ := strings.Cut(address, "://")
	want := strings.NewReplacer("ADDRESS", address, "HOST", host).Replace(text)
	if got := localPort.ReplaceAllString(err.Error(), "LOCAL->"); got != want {
		t.Errorf("text:\n got %s\nwant %s", got, want)
	}
}

func encrypt(ctx context.Context, c *vault.Client) error {
	_, _, err := c.Encrypt(ctx, "kek", 0, []byte("a very secret seed"), nil)
	return err
}

// answer is an Intercept that gives every request the same answer.
func answer(status int, body string) func(string, http.ResponseWriter, *http.Request) bool {
	return func(_ string, w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(status)
		_, _ = fmt.Fprint(w, body)
		return true
	}
}

func TestDialRefuses(t *testing.T) {
	mutual := vaulttest.Start(t, vaulttest.Options{TLS: true, ClientCert: true})
	tests := map[string]struct {
		cfg  vault.Config
		want string
	}{
		"no address": {vault.Config{}, "preparing a vault client: no address is set"},
		"address":    {vault.Config{Addresses: []string{"http://[::1"}}, `preparing a client for vault at http://[::1: `},
		"CA":         {vault.Config{Addresses: []string{nowhere}, CACert: []byte("x")}, "preparing a vault client: vaultCACert contains no valid certificate"},
		"empty CA":   {vault.Config{Addresses: []string{nowhere}, CACert: []byte{}}, "preparing a vault client: vaultCACert contains no valid certificate"},
		"pair":       {vault.Config{Addresses: []string{nowhere}, ClientCert: mutual.ClientCertPEM()}, "preparing a vault client: client certificate and key: tls: failed to find any PEM data in key input"},
		"token":      {vault.Config{Addresses: []string{nowhere}, Credential: vault.Given("hvs.tok\n")}, "preparing a vault client: the token contains characters that are invalid in an HTTP header"},
		"namespace":  {vault.Config{Addresses: []string{nowhere}, Namespace: "a\n"}, "preparing a client for vault at " + nowhere + `: vault namespace "a\n" contains non-printable characters`},
		"other pair": {vault.Config{Addresses: []string{nowhere}, ClientCert: mutual.CAPEM(), ClientKey: mutual.ClientKeyPEM()}, "preparing a vault client: client certificate and key: tls: private key does not match public key"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			nodes, err := vault.Dial(test.cfg)
			if err == nil {
				nodes[0].Close()
				t.Fatal("got a client, want an error")
			}
			// net/url quotes the address differently.
			if got := err.Error(); got != test.want && (name != "address" || !strings.HasPrefix(got, test.want)) {
				t.Errorf("got %s, want %s", got, test.want)
			}
			if strings.Contains(err.Error(), "hvs.tok") {
				t.Errorf("the token is in %q", err)
			}
		})
	}
}

func TestNames(t *testing.T) {
	nodes, err := vault.Dial(vault.Config{Addresses: []string{nowhere}, Namespace: "team/a", Mount: "kms/transit"})
	if err != nil {
		t.Fatal(err)
	}
	c := nodes[0]
	defer c.Close()
	if c.Address() != nowhere || c.Engine() != "team/a/kms/transit" {
		t.Errorf("got %s and %s", c.Address(), c.Engine())
	}
}

// 0.0.0.0 reaches the loopback interface but is not a loopback address, for which net/http never uses a proxy.
func TestEnvironmentIsIgnored(t *testing.T) {
	for _, o := range []vaulttest.Options{{}, {TLS: true}} {
		s := vaulttest.Start(t, o)
		s.CreateKey("kek")
		c := dial(t, s, func(cfg *vault.Config) {
			cfg.Addresses[0] = strings.Replace(cfg.Addresses[0], "127.0.0.1", "0.0.0.0", 1)
			cfg.ServerName = "localhost"
		})
		if err := encrypt(bounded(t), c); err != nil {
			t.Errorf("TLS %v: %v", o.TLS, err)
		}
	}
}

func TestClassOf(t *testing.T) {
	denied := fault.Errorf(fault.Denied, "x")
	tests := map[string]struct {
		err   error
		class fault.Class
	}{
		"none":             {nil, ""},
		"wrapped":          {fmt.Errorf("y: %w", denied), fault.Denied},
		"joined":           {errors.Join(context.Canceled, denied), fault.Denied},
		"canceled":         {fmt.Errorf("y: %w", context.Canceled), fault.Canceled},
		"deadline":         {context.DeadlineExceeded, fault.Timeout},
		"foreign":          {errors.New("x"), fault.Unavailable},
		"key lost":         {fault.Errorf(fault.KeyLost, "x"), fault.KeyLost},
		"version too old":  {fault.Errorf(fault.VersionTooOld, "x"), fault.VersionTooOld},
		"version too new":  {fault.Errorf(fault.VersionTooNew, "x"), fault.VersionTooNew},
		"invalid":          {fault.Errorf(fault.Invalid, "x"), fault.Invalid},
		"sealed":           {fault.Errorf(fault.Sealed, "x"), fault.Sealed},
		"throttled":        {fault.Errorf(fault.Throttled, "x"), fault.Throttled},
		"wrapping in text": {fault.Errorf(fault.Invalid, "%w", denied), fault.Invalid},
	}
	for name, test := range tests {
		if got := fault.ClassOf(test.err); got != test.class {
			t.Errorf("%s: got class %q, want %q", name, got, test.class)
		}
	}
}
