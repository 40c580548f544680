// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"testing"
)

func TestSecretsAreFoundInEveryForm(t *testing.T) {
	const token, seed = "hvs.CAESIJ1234567890", "\xfb\xef\xbe seed of 32 bytes \xff\xfe\xfd"
	s := newSecrets()
	s.add(token, seed, "short")
	for _, c := range []struct{ name, text, want string }{
		{"nothing", "an ordinary line", ""},
		{"as it is", `{"token":"` + token + `"}`, token},
		{"at the end", "…" + token, token},
		{"cut short", token[:len(token)-1] + ".", ""},
		{"bytes", "x" + seed + "x", seed},
		{"base64", "x" + base64.StdEncoding.EncodeToString([]byte(seed)), seed},
		{"base64 for URLs", base64.RawURLEncoding.EncodeToString([]byte(seed)), seed},
		{"hexadecimal", hex.EncodeToString([]byte(token)), token},
		{"as fmt prints bytes", fmt.Sprintf("got %v", []byte(seed)), seed},
		{"short ones turn up by chance", "short", ""},
		{"no text", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, found := s.find([]byte(c.text))
			if got != c.want || found != (c.want != "") {
				t.Errorf("find(%q) = %q, %t, want %q", c.text, got, found, c.want)
			}
		})
	}
}
