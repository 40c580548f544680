// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/trousseau-io/trousseau/internal/vault"
)

var versions = map[string]int{ // 0 means refused
	"vault:v1:AAAA":           1,
	"vault:v12:AAAA":          12,
	"vault:v3:":               3,
	"vault:v3:a:b":            3,
	"vault:v2147483647:AAAA":  2147483647,
	"vault:v2147483648:AAAA":  0,
	"vault:v99999999999:AAAA": 0,
	"vault:v0:AAAA":           0,
	"vault:v-1:AAAA":          0,
	"vault:v+1:AAAA":          0,
	"vault:v01:AAAA":          0,
	"vault:v1_0:AAAA":         0,
	"vault:v 1:AAAA":          0,
	"vault:v1.0:AAAA":         0,
	"vault:v0x1:AAAA":         0,
	"vault:v١:AAAA":           0,
	"vault:v:AAAA":            0,
	"vault:v1":                0,
	"vault:1:AAAA":            0,
	"Vault:v1:AAAA":           0,
	" vault:v1:AAAA":          0,
	"vault:V1:AAAA":           0,
	"":                        0,
}

func TestCiphertextVersion(t *testing.T) {
	for text, want := range versions {
		got, ok := vault.CiphertextVersion([]byte(text))
		if got != want || ok != (want != 0) {
			t.Errorf("%q: got %d, %v, want %d", text, got, ok, want)
		}
	}
	if got, ok := vault.CiphertextVersion(nil); got != 0 || ok {
		t.Errorf("nil: got %d, %v", got, ok)
	}
}

func FuzzCiphertextVersion(f *testing.F) {
	for text := range versions {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		version, ok := vault.CiphertextVersion(text)
		if !ok {
			if version != 0 {
				t.Errorf("refused %q with version %d", text, version)
			}
			return
		}
		// One version has one spelling, so that a version identifies a prefix.
		if version < 1 || !strings.HasPrefix(string(text), "vault:v"+strconv.Itoa(version)+":") {
			t.Errorf("read version %d from %q", version, text)
		}
	})
}
