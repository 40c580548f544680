// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"bytes"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/trousseau-io/trousseau/internal/config"
)

// otherMarker has the same length as marker, so that texts that depend on neither are equal.
const otherMarker = "hvs.OTHERS9876543210"

// FuzzParse checks for arbitrary input that Parse does not panic and opens only absolute names, that its error has
// a text that neither contains nor depends on the marker token anywhere in the file, and that an accepted file,
// written out again, is accepted with the same meaning.
//
// The seeds are the invalid files of the other tests, and those in testdata/fuzz/FuzzParse.
func FuzzParse(f *testing.F) {
	f.Add([]byte(asVaultAgentRendersIt))
	archives, err := filepath.Glob("testdata/bad/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range archives {
		for _, file := range badFiles(f, name) {
			f.Add(bytes.ReplaceAll(file.data, []byte("hvs.abc"), []byte(marker)))
		}
	}
	files := newFiles(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		open := func(name string) ([]byte, error) {
			if !filepath.IsAbs(name) {
				t.Errorf("opened %q, which is not absolute", name)
			}
			return files.Open(name)
		}
		got, err := config.Parse(data, open)
		_, other := config.Parse(bytes.ReplaceAll(data, []byte(marker), []byte(otherMarker)), files.Open)
		if err == nil {
			sameAgain(t, got.Vault)
			return
		}
		switch text := err.Error(); {
		case text == "":
			t.Error("refused without an error text")
		case slices.ContainsFunc([]string{marker, fileToken, fileSecretID, fileJWT, podJWT}, func(secret string) bool {
			return strings.Contains(text, secret)
		}):
			t.Errorf("the error shows a secret: %s", text)
		case other == nil || text != other.Error():
			t.Errorf("the error depends on the token:\n%v\n%v", err, other)
		case strings.ContainsAny(text, "\r\n\x00\x1b"):
			t.Errorf("the error is not one line: %q", text)
		}
	})
}

// sameAgain writes v out as YAML and parses it.
func sameAgain(t *testing.T, v config.Vault) {
	t.Helper()
	if v.Address == "" || len(v.KeyNames) == 0 || v.TransitPath == "" || (v.ClientCert == nil) != v.ClientKey.IsZero() ||
		!complete(v.Credential, v.ClientCert != nil) || v.RequireAssociatedData && v.AssociatedData == "" ||
		v.AcceptBareKeyIDs && v.AssociatedData != "" {
		t.Errorf("accepted an incomplete configuration: %s", plain(v))
	}
	again := files{"/ca": v.CACert, "/cert": v.ClientCert, "/key": []byte(v.ClientKey.Reveal()),
		"/jwt": []byte(v.Credential.JWT.Reveal())}
	var b strings.Builder
	fmt.Fprintf(&b, "vault:\n  address: %q\n  transitPath: %q\n  keynames:\n", v.Address, v.TransitPath)
	for _, name := range v.KeyNames {
		fmt.Fprintf(&b, "  - %q\n", name)
	}
	if v.Addresses != nil {
		b.WriteString("  addresses:\n")
	}
	for _, address := range v.Addresses {
		fmt.Fprintf(&b, "  - %q\n", address)
	}
	optional := func(field, value string, given bool) {
		if given {
			fmt.Fprintf(&b, "  %s: %q\n", field, value)
		}
	}
	c := v.Credential
	optional("token", c.Token.Reveal(), !c.Token.IsZero())
	optional("roleID", c.RoleID, c.RoleID != "")
	optional("secretID", c.SecretID.Reveal(), !c.SecretID.IsZero())
	if !c.JWT.IsZero() {
		fmt.Fprintf(&b, "  %s:\n    tokenFile: /jwt\n", c.Method)
		optional("  role", c.Role, c.Role != "")
	}
	optional("apiProxy", "true", c.Method == config.Proxied)
	optional("authPath", c.Path, c.Path != "")
	optional("authNamespace", c.Namespace, c.Method != config.Proxied && c.Namespace != "")
	optional("associatedData", v.AssociatedData, v.AssociatedData != "")
	optional("requireAssociatedData", "true", v.RequireAssociatedData)
	optional("acceptBareKeyIDs", "true", v.AcceptBareKeyIDs)
	optional("namespace", v.Namespace, v.Namespace != "")
	optional("tlsServerName", v.TLSServerName, v.TLSServerName != "")
	optional("vaultCACert", "/ca", v.CACert != nil)
	optional("clientCert", "/cert", v.ClientCert != nil)
	optional("clientKey", "/key", v.ClientCert != nil)
	got, err := config.Parse([]byte(b.String()), again.Open)
	if err != nil {
		t.Fatalf("accepted, but refused after writing it out: %v\n%s", err, b.String())
	}
	if got, want := plain(got.Vault), plain(v); got != want {
		t.Errorf("after writing it out: got\n%s\nwant\n%s", got, want)
	}
}

// complete reports whether c has all fields of its method, and none of another method.
func complete(c config.Credential, certificate bool) bool {
	has := func(token, appRole, role, jwt, mount bool) bool {
		return token == !c.Token.IsZero() && appRole == (c.RoleID != "") && appRole == !c.SecretID.IsZero() &&
			role == (c.Role != "") && jwt == !c.JWT.IsZero() && mount == (c.Path != "")
	}
	switch c.Method {
	case config.TokenGiven:
		return has(true, false, false, false, false)
	case config.AppRole:
		return has(false, true, false, false, true)
	case config.Kubernetes:
		return has(false, false, true, true, true)
	case config.JWT:
		return has(false, false, c.Role != "", true, true)
	case config.Certificate:
		return has(false, false, false, false, true) && certificate
	case config.Proxied:
		return has(false, false, false, false, false)
	}
	return false
}
