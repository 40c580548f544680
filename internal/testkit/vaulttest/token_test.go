// SPDX-License-Identifier: Apache-2.0

package vaulttest_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

const (
	denied    = "1 error occurred:\n\t* permission denied\n\n"
	deadToken = "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"
)

func TestTokenLifetime(t *testing.T) {
	type step struct {
		after     time.Duration // since the step before
		renew     bool
		increment string
		status    int
		ttl       float64 // lease_duration of a successful renewal, otherwise the ttl in lookup-self
		says      string  // expected warning or error; empty for no check
	}
	for _, tt := range []struct {
		name    string
		options vaulttest.TokenOptions
		steps   []step
	}{
		{"not renewed", vaulttest.TokenOptions{TTL: time.Hour}, []step{
			{after: 59 * time.Minute, status: 200, ttl: 60},
			{after: time.Minute, status: 403},
		}},
		{"default TTL", vaulttest.TokenOptions{}, []step{{status: 200, ttl: 768 * 3600}}},
		{"renewed", vaulttest.TokenOptions{TTL: time.Hour}, []step{
			{after: 50 * time.Minute, renew: true, status: 200, ttl: 3600},
			{after: 50 * time.Minute, status: 200, ttl: 600},
			{renew: true, increment: "2h", status: 200, ttl: 7200},
			{renew: true, increment: "90", status: 200, ttl: 90},
			{after: 90 * time.Second, status: 403},
		}},
		{"explicit max TTL", vaulttest.TokenOptions{TTL: time.Hour, ExplicitMaxTTL: 90 * time.Minute}, []step{
			{after: 50 * time.Minute, renew: true, status: 200, ttl: 2400,
				says: `TTL of "1h" exceeded the effective max_ttl of "40m"; TTL value is capped accordingly`},
			{after: 40 * time.Minute, status: 403},
		}},
		{"max TTL that is not shown", vaulttest.TokenOptions{TTL: time.Hour, MaxTTL: 90 * time.Minute}, []step{
			{renew: true, status: 200, ttl: 3600},
			{after: 59 * time.Minute, renew: true, status: 200, ttl: 1860,
				says: `TTL of "1h" exceeded the effective max_ttl of "31m"; TTL value is capped accordingly`},
			{after: 31 * time.Minute, renew: true, status: 403, says: deadToken},
		}},
		{"Vault's own max TTL", vaulttest.TokenOptions{TTL: 500 * time.Hour}, []step{
			{renew: true, increment: "800h", status: 200, ttl: 768 * 3600,
				says: `TTL of "800h" exceeded the effective max_ttl of "768h"; TTL value is capped accordingly`},
			{after: 767 * time.Hour, renew: true, increment: "500h", status: 200, ttl: 3600,
				says: `TTL of "500h" exceeded the effective max_ttl of "1h"; TTL value is capped accordingly`},
			{after: time.Hour, status: 403},
		}},
		{"periodic", vaulttest.TokenOptions{Period: time.Hour}, []step{
			{after: 59 * time.Minute, renew: true, increment: "5h", status: 200, ttl: 3600},
			{after: 59 * time.Minute, renew: true, status: 200, ttl: 3600},
			{after: 60 * time.Minute, renew: true, status: 403},
		}},
		{"periodic without a maximum", vaulttest.TokenOptions{Period: 700 * time.Hour}, []step{
			{after: 699 * time.Hour, renew: true, status: 200, ttl: 700 * 3600},
			{after: 699 * time.Hour, renew: true, status: 200, ttl: 700 * 3600},
		}},
		{"periodic, explicit max TTL", vaulttest.TokenOptions{Period: time.Hour, ExplicitMaxTTL: 90 * time.Minute}, []step{
			{after: 50 * time.Minute, renew: true, status: 200, ttl: 2400,
				says: `TTL of "1h" exceeded the effective max_ttl of "40m"; TTL value is capped accordingly`},
			{after: 40 * time.Minute, status: 403},
		}},
		{"period over max TTL", vaulttest.TokenOptions{Period: 2 * time.Hour, MaxTTL: time.Hour}, []step{
			{after: 59 * time.Minute, renew: true, status: 200, ttl: 3600,
				says: `period of "2h" exceeded the effective max_ttl of "1h"; period value is capped accordingly`},
		}},
		{"bad increments", vaulttest.TokenOptions{TTL: time.Hour}, []step{
			{renew: true, increment: "-5", status: 400, says: `Field validation failed: error converting input for field "increment": cannot provide negative value '-5'`},
			{renew: true, increment: "x", status: 400, says: `Field validation failed: error converting input for field "increment": time: invalid duration "x"`},
		}},
		{"not renewable", vaulttest.TokenOptions{TTL: time.Hour, NotRenewable: true}, []step{
			{renew: true, status: 400, says: "lease is not renewable"},
			{status: 200, ttl: 3600},
		}},
		{"batch", vaulttest.TokenOptions{TTL: time.Hour, Type: vaulttest.Batch}, []step{
			{renew: true, status: 400, says: "batch tokens cannot be renewed"},
			{after: time.Hour, status: 403},
		}},
		{"three uses", vaulttest.TokenOptions{NumUses: 3}, []step{
			{status: 200, ttl: 768 * 3600}, {status: 200, ttl: 768 * 3600}, {status: 200, ttl: 768 * 3600}, {status: 403},
		}},
		{"last use", vaulttest.TokenOptions{NumUses: 2}, []step{
			{renew: true, status: 200, ttl: 768 * 3600}, {renew: true, status: 400, says: "token not found"}, {status: 403, says: deadToken},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			clock := newClock()
			s := vaulttest.Start(t, vaulttest.Options{Now: clock.Now})
			c := newCaller(t, s, s.CreateToken(tt.options).ID)
			for i, step := range tt.steps {
				clock.advance(step.after)
				var a *answer
				var ttl any
				if step.renew {
					a = c.do("PUT", "auth/token/renew-self", fields{"increment": step.increment})
					ttl = a.Auth["lease_duration"]
				} else {
					a = c.do("GET", "auth/token/lookup-self", nil)
					ttl = a.Data["ttl"]
				}
				says := strings.Join(append(a.Warnings, a.Errors...), "|")
				if a.status != step.status || a.status == 200 && ttl != step.ttl || says != step.says && (a.status == 200 || step.says != "") {
					t.Errorf("step %d: got %d, ttl %v, %q; want %+v", i+1, a.status, ttl, says, step)
				}
			}
		})
	}
}

func TestTokens(t *testing.T) {
	s := vaulttest.Start(t)
	first := s.CreateToken(vaulttest.TokenOptions{})
	hour := s.CreateToken(vaulttest.TokenOptions{TTL: time.Hour})
	batch := s.CreateToken(vaulttest.TokenOptions{Type: vaulttest.Batch, TTL: time.Hour}).ID
	last := s.CreateToken(vaulttest.TokenOptions{})
	if got := s.Tokens(); !slices.Equal(got, []vaulttest.Token{first, hour, last}) {
		t.Errorf("got %v", got)
	}
	s.Revoke(first.ID)
	s.Advance(time.Hour)
	if got := s.Tokens(); !slices.Equal(got, []vaulttest.Token{last}) || s.TokenAlive(batch) {
		t.Errorf("an hour later: got %v; batch token alive %v", got, s.TokenAlive(batch))
	}
}

// Advance moves the clock for everything, here for the dates of keys.
func TestAdvance(t *testing.T) {
	clock := newClock()
	s := vaulttest.Start(t, vaulttest.Options{Now: clock.Now})
	second := vaulttest.Start(t, vaulttest.Options{Join: s})
	key := s.CreateKey("kek")
	s.Advance(time.Minute)
	second.Advance(time.Minute)
	clock.advance(time.Minute)
	key.Rotate()
	if got := key.Created(2).Sub(key.Created(1)); got != 3*time.Minute {
		t.Errorf("got %v between the versions, want 3m", got)
	}
}

func TestPolicyRules(t *testing.T) {
	s := vaulttest.Start(t)
	s.SetPolicy("a", vaulttest.Rules{
		"transit/encrypt/*":      {"update"},
		"transit/encrypt/kek":    {"read", "update"},
		"transit/encrypt/secret": {"deny"},
		"transit/+/plus":         {"create"},
		"transit/keys/pre*":      {"list"},
		"shared":                 {"update"},
		"kv/+/a":                 {"read"},
		"kv/+/a*":                {"list"},
		"kv/+/ab*":               {"update"},
		"kv/+/y/z":               {"read"},
		"kv/+/+/z":               {"list"},
		"kv/+/p/+":               {"read"},
		"kv/+/+/q":               {"list"},
	})
	s.SetPolicy("b", vaulttest.Rules{"shared": {"delete"}, "transit/keys/prefix": {"read"}})
	c := newCaller(t, s, s.CreateToken(vaulttest.TokenOptions{Policies: []string{"a", "b"}}).ID)
	for path, want := range map[string]string{
		"transit/encrypt/kek":    "read update",
		"transit/encrypt/other":  "update",
		"transit/encrypt/secret": "deny",
		"transit/encrypt/plus":   "update", // the later wildcard wins
		"transit/decrypt/plus":   "create",
		"transit/decrypt/kek":    "deny",
		"transit/keys/preview":   "list",
		"transit/keys/prefix":    "read",
		"shared":                 "delete update",
		"kv/x/a":                 "read",   // no glob at the end
		"kv/x/aa":                "list",   // the only match
		"kv/x/abc":               "update", // longer
		"kv/x/y/z":               "read",   // fewer "+"
		"kv/x/p/q":               "read",   // lexically greater
		"kv/x":                   "deny",
		"sys/capabilities-self":  "update",
	} {
		data := c.want(200, "POST", "sys/capabilities-self", fields{"paths": []string{path}}).Data
		for _, field := range []string{path, "capabilities"} {
			var got []string
			list, _ := data[field].([]any)
			for _, capability := range list {
				text, _ := capability.(string)
				got = append(got, text)
			}
			if strings.Join(got, " ") != want {
				t.Errorf("%s: got %q, want %q", path, got, want)
			}
		}
	}
	root := newCaller(t, s, s.RootToken())
	data := root.want(200, "POST", "sys/capabilities-self", fields{"paths": []string{"x", "y"}}).Data
	if list, _ := data["x"].([]any); len(data) != 2 || len(list) != 1 || list[0] != "root" {
		t.Errorf("root: got %v", data)
	}
}

// TestPolicyOfGoCode checks that a policy set from Go reads the same over HTTP and
// can be written back.
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
