// SPDX-License-Identifier: Apache-2.0

package keyid_test

import (
	"strings"
	"testing"

	"github.com/trousseau-io/trousseau/internal/keyid"
)

func TestString(t *testing.T) {
	tests := []struct {
		id   keyid.ID
		want string
	}{
		{
			keyid.ID{Engine: "transit", Key: "trousseau-kms-vault", Version: 3, Created: 1790000000},
			"transit/trousseau-kms-vault/v3@1790000000",
		},
		{
			keyid.ID{Engine: "platform/eu/kms/transit", Key: "k", Version: 12, Created: 1},
			"platform/eu/kms/transit/k/v12@1",
		},
		{keyid.ID{Engine: "transit", Key: "k", Version: 1}, "transit/k/v1"},
		{keyid.ID{Engine: "transit/v2", Key: "v1", Version: 1}, "transit/v2/v1/v1"},
	}
	for _, tt := range tests {
		if got := tt.id.String(); got != tt.want {
			t.Errorf("%+v: String() = %q, want %q", tt.id, got, tt.want)
		}
		back, err := keyid.Parse(tt.want)
		if err != nil || back != tt.id {
			t.Errorf("Parse(%q) = %+v, %v; want %+v", tt.want, back, err, tt.id)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for name, s := range map[string]string{
		"empty":                   "",
		"bare version":            "1",
		"no version":              "transit/key",
		"no mount":                "key/v1",
		"empty mount":             "/key/v1",
		"empty key":               "transit//v1",
		"version zero":            "transit/key/v0",
		"negative version":        "transit/key/v-1",
		"signed version":          "transit/key/v+1",
		"leading zero":            "transit/key/v01",
		"version too large":       "transit/key/v2147483648",
		"empty creation time":     "transit/key/v1@",
		"creation time zero":      "transit/key/v1@0",
		"creation time is text":   "transit/key/v1@now",
		"two creation times":      "transit/key/v1@1@2",
		"something after":         "transit/key/v1/",
		"longer than the KMS API": strings.Repeat("m", keyid.MaxSize) + "/key/v1",
	} {
		if id, err := keyid.Parse(s); err == nil {
			t.Errorf("%s: Parse accepted it as %+v", name, id)
		}
	}
}

func TestParseErrorsDoNotRepeatTheInput(t *testing.T) {
	const planted = "s3cr3t-from-etcd"
	for _, s := range []string{planted, "transit/key/v" + planted, "transit/key/v1@" + planted} {
		if _, err := keyid.Parse(s); err == nil || strings.Contains(err.Error(), planted) {
			t.Errorf("Parse(%q): error %v repeats its input", s, err)
		}
	}
}

func TestHashIsTheAPIServersLabel(t *testing.T) {
	// printf %s transit/k/v1 | sha256sum
	const want = "sha256:4ab07445131865520f05afaa8165e2197a0de54a00e4f2876d84e578123fa6d2"
	if got := keyid.Hash("transit/k/v1"); got != want {
		t.Errorf("Hash = %s, want %s", got, want)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"transit/k/v1", "ns/transit/k/v3@1790000000", "a/b/c/d/v2@1", "k/v1", "transit/k/v01", "/v1", "@"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := keyid.Parse(s)
		if err != nil {
			return
		}
		if got := id.String(); got != s {
			t.Errorf("Parse(%q).String() = %q", s, got)
		}
		if id.Version < 1 || id.Key == "" || id.Engine == "" {
			t.Errorf("Parse(%q) = %+v", s, id)
		}
	})
}
