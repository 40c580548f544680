// SPDX-License-Identifier: Apache-2.0

package vaultview_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/internal/config"
	"github.com/trousseau-io/trousseau/internal/ctl/vaultview"
	"github.com/trousseau-io/trousseau/internal/fault"
	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

// dial returns a view with the key kek and additional configuration lines.
func dial(t *testing.T, address string, lines ...string) *vaultview.View {
	t.Helper()
	text := fmt.Sprintf("provider: vault\nvault:\n  keynames: [kek]\n  address: %s\n  %s\n", address, strings.Join(lines, "\n  "))
	cfg, err := config.Parse([]byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	views, err := vaultview.Dial(&cfg.Vault)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(views[0].Close)
	return views[0]
}

// token creates a token and returns the configuration line for it.
func token(s *vaulttest.Server, options vaulttest.TokenOptions) string {
	return "token: " + s.CreateToken(options).ID
}

func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestHealth(t *testing.T) {
	tests := map[string]struct {
		arrange func(*vaulttest.Server)
		want    vaultview.Health
	}{
		"active":          {func(*vaulttest.Server) {}, vaultview.Health{}},
		"standby":         {func(s *vaulttest.Server) { s.SetStandby(true) }, vaultview.Health{Standby: true}},
		"sealed":          {func(s *vaulttest.Server) { s.Seal() }, vaultview.Health{Sealed: true, Standby: true}},
		"not initialized": {func(s *vaulttest.Server) { s.SetInitialized(false) }, vaultview.Health{Sealed: true, Standby: true}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := vaulttest.Start(t)
			test.arrange(s)
			s.Advance(time.Hour)
			// The answer is the same in a namespace and with a revoked token.
			h, err := dial(t, s.URL(), "namespace: team/a", "token: hvs.dead").Health(bounded(t))
			if err != nil {
				t.Fatal(err)
			}
			if ahead := time.Until(time.Unix(int64(h.Time), 0)); ahead < 59*time.Minute || ahead > time.Hour || h.Took <= 0 {
				t.Errorf("its time is %s ahead, and the call took %s; want an hour and more than 0", ahead, h.Took)
			}
			if initialized := name != "not initialized"; *h.Initialized != initialized {
				t.Errorf("initialized is %t, want %t", *h.Initialized, initialized)
			}
			if h.Product() != "Vault" {
				t.Errorf("the product is %s, want Vault", h.Product())
			}
			test.want.Version, test.want.Time, test.want.Took = vaulttest.Version, h.Time, h.Took
			h.Initialized, h.Enterprise, h.DRMode = nil, nil, ""
			if h != test.want {
				t.Errorf("got %+v, want %+v", h, test.want)
			}
		})
	}
}

func TestProduct(t *testing.T) {
	for answer, want := range map[string]string{
		`{"initialized":true,"version":"2.6.0"}`:                     "OpenBao",
		`{"initialized":true,"version":"1.9.10"}`:                    "Vault",
		`{"initialized":true,"version":"1.21.0","enterprise":false}`: "Vault",
		`{"initialized":true,"version":"1.21.0","enterprise":true}`:  "Vault Enterprise",
	} {
		s := vaulttest.Start(t)
		s.Inject(vaulttest.Fault{Match: vaulttest.Ops(vaulttest.OpHealth), Status: http.StatusOK, Body: answer})
		if h, err := dial(t, s.URL(), "token: hvs.any").Health(bounded(t)); err != nil || h.Product() != want || h.Time != 0 {
			t.Errorf("%s: %+v, %v, want %s and no time", answer, h, err, want)
		}
	}
}

func TestNotVault(t *testing.T) {
	for _, answer := range []string{`{"errors":["who?"]}`, `{}`, `{"initialized":"yes"}`, "<html>"} {
		s := vaulttest.Start(t)
		s.Inject(vaulttest.Fault{Status: http.StatusNotFound, Body: answer})
		v := dial(t, s.URL(), "token: hvs.any")
		if _, err := v.Health(bounded(t)); fault.ClassOf(err) != fault.Unavailable || !strings.HasPrefix(fmt.Sprint(err), "asking for sys/health at "+s.URL()+": ") {
			t.Errorf("%s: %v, want class %s with the address", answer, err, fault.Unavailable)
		}
	}
	s := vaulttest.Start(t)
	s.Inject(vaulttest.Fault{Status: http.StatusOK, Body: `{"data":{"name":"kek"}}`})
	if _, err := dial(t, s.URL(), "token: hvs.any").KeyDetails(bounded(t), "kek"); fault.ClassOf(err) != fault.Unavailable {
		t.Errorf("a key without a version: %v, want class %s", err, fault.Unavailable)
	}
}

func TestTokenDetails(t *testing.T) {
	s := vaulttest.Start(t)
	s.SetPolicy("more", vaulttest.Rules{})
	tests := map[string]struct {
		options vaulttest.TokenOptions
		want    vaultview.Token
	}{
		"periodic": {
			vaulttest.TokenOptions{Orphan: true, Period: time.Hour, Policies: []string{"more"}},
			vaultview.Token{Policies: []string{"default", "more"}, Type: "service", TTL: 3600, Renewable: true, Period: 3600},
		},
		"limited": {
			vaulttest.TokenOptions{TTL: time.Hour, ExplicitMaxTTL: 2 * time.Hour, NumUses: 5},
			vaultview.Token{Policies: []string{"default"}, Type: "service", TTL: 3600, Renewable: true, MaxTTL: 7200, Uses: 4},
		},
		"batch": {
			vaulttest.TokenOptions{Orphan: true, Type: vaulttest.Batch, TTL: time.Hour},
			vaultview.Token{Policies: []string{"default"}, Type: "batch", TTL: 3600},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := dial(t, s.URL(), token(s, test.options)).TokenDetails(bounded(t))
			if err != nil {
				t.Fatal(err)
			}
			slices.Sort(got.Policies)
			if got.Expires == nil || time.Until(*got.Expires).Round(time.Minute) != time.Hour {
				t.Errorf("it expires at %v, want in an hour", got.Expires)
			}
			got.Expires, got.TTL = nil, vaultview.Seconds(got.TTL.Duration().Round(time.Minute)/time.Second)
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %+v\nwant %+v", got, test.want)
			}
		})
	}
	root, err := dial(t, s.URL(), "token: "+s.RootToken()).TokenDetails(bounded(t))
	if err != nil || root.Expires != nil || root.TTL != 0 || !slices.Equal(root.Policies, []string{"root"}) {
		t.Errorf("root: %+v, %v", root, err)
	}
	mute := dial(t, s.URL(), token(s, vaulttest.TokenOptions{NoDefaultPolicy: true}))
	if _, err := mute.TokenDetails(bounded(t)); fault.ClassOf(err) != fault.Denied {
		t.Errorf("without lookup-self: %v, want class %s", err, fault.Denied)
	}
}

func TestCapabilities(t *testing.T) {
	s := vaulttest.Start(t)
	s.Mount("team", "transit")
	v := dial(t, s.URL(), "namespace: team", token(s, vaulttest.TokenOptions{Namespace: "team", Rules: vaulttest.Rules{
		"transit/encrypt/kek": {"create", "update"},
	}}))
	got, err := v.Capabilities(bounded(t), "team", []string{"transit/encrypt/kek", "transit/keys/kek"})
	want := map[string][]string{"transit/encrypt/kek": {"create", "update"}, "transit/keys/kek": {"deny"}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	if _, err := v.Capabilities(bounded(t), "", []string{"transit/encrypt/kek"}); fault.ClassOf(err) != fault.Denied {
		t.Errorf("in the root namespace: %v, want class %s", err, fault.Denied)
	}
}

func TestKeyDetails(t *testing.T) {
	s := vaulttest.Start(t)
	key := s.Mount("team", "kms").CreateKey("kek")
	key.Rotate()
	key.Rotate()
	key.SetMinDecryptionVersion(2)
	key.SetMinEncryptionVersion(3)
	v := dial(t, s.URL(), "namespace: team", "transitPath: kms", "token: "+s.RootToken())
	got, err := v.KeyDetails(bounded(t), "kek")
	want := vaultview.Key{Type: "aes256-gcm96", Latest: 3, MinDecryption: 2, MinEncryption: 3}
	if got.SupportsEncryption == nil || !*got.SupportsEncryption || got.Created().Unix() != key.Created(3).Unix() {
		t.Errorf("encryption %v, created %s, want true, %s", got.SupportsEncryption, got.Created(), key.Created(3))
	}
	got.SupportsEncryption, got.Versions = nil, nil
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
	if _, err := v.KeyDetails(bounded(t), "other"); fault.ClassOf(err) != fault.KeyLost {
		t.Errorf("no such key: %v, want class %s", err, fault.KeyLost)
	}
	elsewhere := dial(t, s.URL(), "transitPath: none", "token: "+s.RootToken())
	if _, err := elsewhere.KeyDetails(bounded(t), "kek"); fault.ClassOf(err) != fault.Unavailable || !strings.Contains(err.Error(), "nothing is mounted at this path") {
		t.Errorf("no such engine: %v, want class %s", err, fault.Unavailable)
	}

	s.Inject(vaulttest.Fault{Match: vaulttest.Ops(vaulttest.OpReadKey), Status: http.StatusOK, Body: `{"data":{"type":"rsa-2048",` +
		`"supports_encryption":false,"derived":true,"exportable":true,"allow_plaintext_backup":true,"deletion_allowed":true,` +
		`"auto_rotate_period":7200,"latest_version":1,"min_decryption_version":1,"keys":{"1":{"public_key":"x"}}}}`})
	want = vaultview.Key{
		Type: "rsa-2048", SupportsEncryption: new(bool), Derived: true, Exportable: true, AllowPlaintextBackup: true, DeletionAllowed: true,
		AutoRotatePeriod: 7200, Latest: 1, MinDecryption: 1,
	}
	got, err = v.KeyDetails(bounded(t), "kek")
	if !got.Created().IsZero() {
		t.Errorf("created %s, want zero", got.Created())
	}
	if got.Versions = nil; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
}

// Reading must not create the key under a policy with create.
func TestKeyExists(t *testing.T) {
	everything := vaulttest.Rules{"transit/+/*": {"create", "read", "update"}}
	tests := map[string]struct {
		rules   vaulttest.Rules
		arrange func(*vaulttest.Key)
		exists  bool
		class   fault.Class
	}{
		"it does":          {everything, func(*vaulttest.Key) {}, true, ""},
		"it does not":      {everything, func(k *vaulttest.Key) { k.Delete() }, false, ""},
		"old versions out": {everything, func(k *vaulttest.Key) { k.Rotate(); k.SetMinDecryptionVersion(2) }, true, ""},
		"denied":           {vaulttest.Rules{"transit/encrypt/kek": {"create", "update"}}, func(k *vaulttest.Key) { k.Delete() }, false, fault.Denied},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := vaulttest.Start(t)
			key := s.CreateKey("kek")
			test.arrange(key)
			before := key.Exists()
			exists, err := dial(t, s.URL(), token(s, vaulttest.TokenOptions{Rules: test.rules})).KeyExists(bounded(t), "kek")
			if exists != test.exists || fault.ClassOf(err) != test.class {
				t.Errorf("got %t, %v, want %t and class %q", exists, err, test.exists, test.class)
			}
			if key.Exists() != before {
				t.Error("it created the key")
			}
		})
	}
}

func TestTokenAccepted(t *testing.T) {
	tests := map[string]struct {
		rules vaulttest.Rules
		want  bool
	}{
		"may ask for its capabilities": {vaulttest.Rules{"sys/capabilities-self": {"update"}}, true},
		"may read the key":             {vaulttest.Rules{"transit/keys/kek": {"read"}}, true},
		"may decrypt":                  {vaulttest.Rules{"transit/decrypt/kek": {"update"}}, true},
		"may do nothing here":          {vaulttest.Rules{"transit/decrypt/other": {"update"}}, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := vaulttest.Start(t)
			s.CreateKey("kek")
			id := s.CreateToken(vaulttest.TokenOptions{NoDefaultPolicy: true, Rules: test.rules}).ID
			v := dial(t, s.URL(), "token: "+id)
			if got := v.TokenAccepted(bounded(t)); got != test.want {
				t.Errorf("got %t, want %t", got, test.want)
			}
			s.Revoke(id)
			if v.TokenAccepted(bounded(t)) {
				t.Error("a revoked token is accepted")
			}
		})
	}
}

// A view logs in as the daemon does: with the client certificate of the connection,
// in the namespace of the auth method.
func TestLogin(t *testing.T) {
	s := vaulttest.Start(t, vaulttest.Options{TLS: true, ClientCert: true, Names: []string{"vault.example"}})
	s.Mount("team", "transit").CreateKey("kek")
	dir := t.TempDir()
	files := map[string][]byte{"ca.crt": s.CAPEM(), "client.crt": s.ClientCertPEM(), "client.key": s.ClientKeyPEM()}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	auth := s.EnableAppRole("team", "approle")
	role := auth.SetRole("trousseau", vaulttest.TokenOptions{TTL: time.Hour, Rules: vaulttest.TransitPolicy("transit", "kek")})
	v := dial(t, s.URL(), "vaultCACert: "+dir+"/ca.crt", "clientCert: "+dir+"/client.crt", "clientKey: "+dir+"/client.key",
		"tlsServerName: vault.example", "namespace: team",
		"roleID: "+role, "secretID: "+auth.NewSecretID("trousseau"))
	if _, err := v.Login(bounded(t)); err != nil {
		t.Fatal(err)
	}
	if got, err := v.TokenDetails(bounded(t)); err != nil || got.Expires == nil {
		t.Errorf("the token of the login: %+v, %v", got, err)
	}
	if _, err := v.KeyDetails(bounded(t), "kek"); err != nil {
		t.Errorf("reading the key: %v", err)
	}
	if n := len(auth.Tokens()); n != 1 {
		t.Errorf("%d tokens, want 1", n)
	}
	if err := v.Revoke(bounded(t)); err != nil || len(auth.Tokens()) != 0 {
		t.Errorf("revoking: %v, and %d tokens are left, want none", err, len(auth.Tokens()))
	}
}
