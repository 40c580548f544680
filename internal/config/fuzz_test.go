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

// otherMarker is as long as marker, so that a text that depends on neither is the same for both.
const otherMarker = "hvs.OTHERS9876543210"

// FuzzParse holds for any bytes whatever: Parse does not panic; it opens only files that References names; the error
// has a text, and that text neither holds the marker token nor depends on it, wherever in the file it stands; and
// what Parse accepts, written out again, it accepts again with the same meaning.
//
// The seeds are the bad files of the other tests, and those in testdata/fuzz/FuzzParse.
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
		references := config.References(data)
		open := func(name string) ([]byte, error) {
			if !slices.Contains(references, name) {
				t.Errorf("opened %q, which References does not name", name)
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
			t.Error("refused without a word")
		case strings.Contains(text, marker) || strings.Contains(text, fileToken):
			t.Errorf("the error shows the token: %s", text)
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
	if v.Address == "" || len(v.KeyNames) == 0 || v.Token.IsZero() || v.TransitPath == "" ||
		(v.ClientCert == nil) != v.ClientKey.IsZero() {
		t.Errorf("accepted an incomplete configuration: %s", plain(v))
	}
	again := files{"/ca": v.CACert, "/cert": v.ClientCert, "/key": []byte(v.ClientKey.Reveal())}
	var b strings.Builder
	fmt.Fprintf(&b, "vault:\n  address: %q\n  transitPath: %q\n  token: %q\n  keynames:\n",
		v.Address, v.TransitPath, v.Token.Reveal())
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
	optional("namespace", v.Namespace, v.Namespace != "")
	optional("tlsServerName", v.TLSServerName, v.TLSServerName != "")
	optional("vaultCACert", "/ca", v.CACert != nil)
	optional("clientCert", "/cert", v.ClientCert != nil)
	optional("clientKey", "/key", v.ClientCert != nil)
	got, err := config.Parse([]byte(b.String()), again.Open)
	if err != nil {
		t.Fatalf("accepted, but not when written out again: %v\n%s", err, b.String())
	}
	if got, want := plain(got.Vault), plain(v); got != want {
		t.Errorf("written out again it means\n%s\nbefore\n%s", got, want)
	}
}
