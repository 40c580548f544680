// SPDX-License-Identifier: Apache-2.0

package vaulttest_test

import (
	"testing"

	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

func TestPoliciesOverHTTP(t *testing.T) {
	const text = `# What a plugin needs.
path "transit/encrypt/kek" { capabilities = ["update"] } // least
/* and no more */ path "transit/keys/+" {
  capabilities = [ "read",
    "list", ]
}
`
	s := vaulttest.Start(t)
	s.CreateKey("kek")
	root := newCaller(t, s, s.RootToken())
	root.want(404, "GET", "sys/policies/acl/kms", nil)
	root.want(204, "POST", "sys/policies/acl/kms", fields{"policy": text})
	if got := root.want(200, "GET", "sys/policies/acl/kms", nil).Data; got["policy"] != text || got["name"] != "kms" {
		t.Errorf("got %v", got)
	}
	c := newCaller(t, s, s.CreateToken(vaulttest.TokenOptions{Policies: []string{"kms"}}).ID)
	c.encrypt("kek", "seed")
	c.want(200, "GET", "transit/keys/kek", nil)
	c.want(403, "POST", "transit/decrypt/kek", nil, denied)
	c.want(403, "GET", "sys/policies/acl/kms", nil, denied)
	root.want(204, "PUT", "sys/policies/acl/kms", fields{"policy": `path "transit/*" { capabilities = ["deny"] }`})
	c.want(403, "GET", "transit/keys/kek", nil, denied)
	root.want(204, "PUT", "sys/policies/acl/kms", fields{"policy": `path "transit/keys/kek" {}`})
	c.want(403, "GET", "transit/keys/kek", nil, denied)

	if a := root.want(200, "PUT", "sys/policies/acl/KMS", fields{"policy": text}); len(a.Warnings) != 1 || a.Warnings[0] != "policy name was converted to kms" {
		t.Errorf("got warnings %q", a.Warnings)
	}
	c.encrypt("kek", "seed")
	if got := root.want(200, "GET", "sys/policies/acl/root", nil).Data["policy"]; got != "" {
		t.Errorf("root: got %v", got)
	}
}

// TestPolicyOfGoCode is read over HTTP, and means the same when it is written back.
func TestPolicyOfGoCode(t *testing.T) {
	s := vaulttest.Start(t)
	s.SetPolicy("kms", vaulttest.Rules{"b": {"update", "read"}, "a/*": {"list"}})
	root := newCaller(t, s, s.RootToken())
	const want = `path "a/*" {
  capabilities = ["list"]
}

path "b" {
  capabilities = ["update", "read"]
}
`
	if got := root.want(200, "GET", "sys/policies/acl/kms", nil).Data["policy"]; got != want {
		t.Errorf("got\n%v", got)
	}
	root.want(204, "POST", "sys/policies/acl/kms", fields{"policy": want})
	c := newCaller(t, s, s.CreateToken(vaulttest.TokenOptions{Policies: []string{"kms"}}).ID)
	a := c.want(200, "POST", "sys/capabilities-self", fields{"paths": []string{"a/x", "b"}})
	if b, _ := a.Data["b"].([]any); len(b) != 2 || len(a.Data["a/x"].([]any)) != 1 {
		t.Errorf("got %v", a.Data)
	}
}

func TestPoliciesRefused(t *testing.T) {
	s := vaulttest.Start(t)
	root := newCaller(t, s, s.RootToken())
	root.want(400, "POST", "sys/policies/acl/root", fields{"policy": `path "a" { capabilities = ["read"] }`}, `cannot update "root" policy`)
	for text, want := range map[string]string{
		"":                                         "'policy' parameter not supplied or empty",
		"path a {":                                 "failed to parse policy: At 1:6: expected a string got: Ident",
		`path "a" { capabilities = ["fly"] }`:      `failed to parse policy: path "a": invalid capability "fly"`,
		`path "a" { capabilities = ["read" }`:      `failed to parse policy: At 1:35: expected a comma got: "}"`,
		`path "a" { capabilities = ["read"]`:       "failed to parse policy: At 1:35: expected object closing RBRACE got: EOF",
		`path "a" { allowed_parameters = {} }`:     `failed to parse policy: path "a": allowed_parameters is not supported by this fake`,
		`nonsense "a" { capabilities = ["read"] }`: "failed to parse policy: 1 error occurred:\n\t* invalid key \"nonsense\" on line 0\n\n",
		"path \"a":                                 "failed to parse policy: literal not terminated",
	} {
		root.want(400, "POST", "sys/policies/acl/kms", fields{"policy": text}, want)
	}
	root.want(404, "GET", "sys/policies/acl/kms", nil)
}
