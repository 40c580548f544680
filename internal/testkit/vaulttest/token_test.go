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

func TestDeniedTexts(t *testing.T) {
	s := vaulttest.Start(t)
	s.CreateKey("kek")
	token := s.CreateToken(vaulttest.TokenOptions{})
	newCaller(t, s, "").want(403, "GET", "transit/keys/kek", nil, "permission denied")
	newCaller(t, s, token.ID).want(403, "GET", "transit/keys/kek", nil, denied)
	newCaller(t, s, token.ID).want(403, "GET", "nowhere/keys/kek", nil, denied)
	newCaller(t, s, "hvs.unknown").want(403, "GET", "transit/keys/kek", nil, deadToken)
	s.RevokeAccessor(token.Accessor)
	newCaller(t, s, token.ID).want(403, "GET", "auth/token/lookup-self", nil, deadToken)
}

func TestLookupSelf(t *testing.T) {
	clock := newClock()
	s := vaulttest.Start(t, vaulttest.Options{Now: clock.Now})
	token := s.CreateToken(vaulttest.TokenOptions{Policies: []string{"kms"}, TTL: time.Hour, ExplicitMaxTTL: 2 * time.Hour, Orphan: true})
	if !strings.HasPrefix(token.ID, "hvs.") || len(token.ID) < 28 || len(token.Accessor) != 24 {
		t.Errorf("token %q, accessor %q", token.ID, token.Accessor)
	}
	clock.advance(time.Minute)
	data := newCaller(t, s, token.ID).want(200, "GET", "auth/token/lookup-self", nil).Data
	for field, want := range map[string]any{
		"id": token.ID, "accessor": token.Accessor, "path": "auth/token/create", "meta": nil, "display_name": "token",
		"num_uses": 0.0, "orphan": true, "creation_time": 1_700_000_000.0, "creation_ttl": 3600.0, "ttl": 3540.0,
		"explicit_max_ttl": 7200.0, "entity_id": "", "type": "service", "renewable": true,
	} {
		if got, ok := data[field]; !ok || got != want {
			t.Errorf("%s: got %v, want %v", field, got, want)
		}
	}
	expires, _ := data["expire_time"].(string)
	if got, err := time.Parse(time.RFC3339, expires); err != nil || got.Unix() != 1_700_003_600 {
		t.Errorf("expire_time: got %q", expires)
	}
	if policies, _ := data["policies"].([]any); len(policies) != 2 || policies[0] != "default" || policies[1] != "kms" {
		t.Errorf("policies: got %v", data["policies"])
	}

	data = newCaller(t, s, s.RootToken()).want(200, "GET", "auth/token/lookup-self", nil).Data
	if data["expire_time"] != nil || data["ttl"] != 0.0 || data["path"] != "auth/token/root" {
		t.Errorf("root token: got %v", data)
	}
}

func TestTokenLifetime(t *testing.T) {
	type step struct {
		after     time.Duration // since the step before
		renew     bool
		increment string
		status    int
		ttl       float64 // lease_duration of a renewal that works, else what lookup-self says
		says      string  // the warning or the error, if it is asked for
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
		{"periodic for ever", vaulttest.TokenOptions{Period: 700 * time.Hour}, []step{
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

func TestRevokeSelf(t *testing.T) {
	s := vaulttest.Start(t)
	for _, tt := range []struct {
		name    string
		options vaulttest.TokenOptions
		status  int
		says    []string
		dies    bool
	}{
		{"service", vaulttest.TokenOptions{}, 204, nil, true},
		{"periodic", vaulttest.TokenOptions{Period: time.Hour}, 204, nil, true},
		{"last use", vaulttest.TokenOptions{NumUses: 1}, 204, nil, true},
		{"batch", vaulttest.TokenOptions{Type: vaulttest.Batch}, 400, []string{"batch tokens cannot be revoked"}, false},
		{"not allowed to", vaulttest.TokenOptions{NoDefaultPolicy: true}, 403, []string{denied}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			token := s.CreateToken(tt.options).ID
			child := token
			if tt.options.Type != vaulttest.Batch && tt.options.NumUses == 0 {
				child = s.CreateToken(vaulttest.TokenOptions{Parent: token}).ID
			}
			newCaller(t, s, token).want(tt.status, "POST", "auth/token/revoke-self", nil, tt.says...)
			if s.TokenAlive(token) == tt.dies || s.TokenAlive(child) == tt.dies {
				t.Errorf("alive: the token %v, its child %v", s.TokenAlive(token), s.TokenAlive(child))
			}
		})
	}
	if got := s.Count(vaulttest.OpRevokeSelf); got != 5 {
		t.Errorf("Count: got %d, want 5", got)
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

// The clock that Advance moves is the one for everything: here the dates of keys.
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

// A renewal tells how many uses were granted, not how many are left.
func TestRenewLimitedToken(t *testing.T) {
	s := vaulttest.Start(t)
	c := newCaller(t, s, s.CreateToken(vaulttest.TokenOptions{NumUses: 3}).ID)
	c.want(200, "GET", "auth/token/lookup-self", nil)
	if got := c.want(200, "POST", "auth/token/renew-self", nil).Auth["num_uses"]; got != 3.0 {
		t.Errorf("num_uses: got %v, want 3", got)
	}
}

func TestRenewRootToken(t *testing.T) {
	s := vaulttest.Start(t)
	newCaller(t, s, s.RootToken()).want(400, "POST", "auth/token/renew-self", nil, "invalid lease ID")
}

func TestChildrenDieWithParent(t *testing.T) {
	clock := newClock()
	s := vaulttest.Start(t, vaulttest.Options{Now: clock.Now})
	family := func(ttl time.Duration) (parent, child, grandchild, batch, orphan string) {
		parent = s.CreateToken(vaulttest.TokenOptions{TTL: ttl}).ID
		child = s.CreateToken(vaulttest.TokenOptions{Parent: parent}).ID
		return parent, child, s.CreateToken(vaulttest.TokenOptions{Parent: child}).ID,
			s.CreateToken(vaulttest.TokenOptions{Parent: child, Type: vaulttest.Batch}).ID,
			s.CreateToken(vaulttest.TokenOptions{Orphan: true}).ID
	}
	check := func(when string, dead []string, alive ...string) {
		t.Helper()
		for _, token := range dead {
			if s.TokenAlive(token) {
				t.Errorf("%s: a token that should be dead is alive", when)
			}
			newCaller(t, s, token).want(403, "GET", "auth/token/lookup-self", nil, deadToken)
		}
		for _, token := range alive {
			newCaller(t, s, token).want(200, "GET", "auth/token/lookup-self", nil)
		}
	}
	parent, child, grandchild, batch, orphan := family(time.Hour)
	s.Revoke(child)
	check("child revoked", []string{child, grandchild, batch}, parent, orphan)
	parent, child, grandchild, batch, orphan = family(time.Hour)
	clock.advance(time.Hour)
	check("parent expired", []string{parent, child, grandchild, batch}, orphan)
}

func TestTokensOverHTTP(t *testing.T) {
	s := vaulttest.Start(t)
	root := newCaller(t, s, s.RootToken())
	s.SetPolicy("kms", vaulttest.TransitPolicy("transit", "kek"))
	auth := root.want(200, "POST", "auth/token/create", fields{"policies": []string{"kms"}, "period": "1h", "no_parent": true}).Auth
	id, _ := auth["client_token"].(string)
	if auth["lease_duration"] != 3600.0 || auth["orphan"] != true || auth["renewable"] != true || auth["token_type"] != "service" {
		t.Errorf("create: got %v", auth)
	}
	c := newCaller(t, s, id)
	if got := c.want(200, "GET", "auth/token/lookup-self", nil).Data["period"]; got != 3600.0 {
		t.Errorf("period: got %v", got)
	}
	c.want(403, "POST", "auth/token/create", nil, denied)
	c.want(403, "POST", "auth/token/revoke-accessor", fields{"accessor": auth["accessor"]}, denied)
	root.want(204, "POST", "auth/token/revoke-accessor", fields{"accessor": auth["accessor"]})
	c.want(403, "GET", "auth/token/lookup-self", nil, deadToken)

	auth = root.want(200, "POST", "auth/token/create", fields{"policies": []string{"kms"}, "ttl": "10m"}).Auth
	id, _ = auth["client_token"].(string)
	c = newCaller(t, s, id)
	c.want(204, "POST", "auth/token/revoke-self", nil)
	c.want(403, "POST", "auth/token/renew-self", nil, deadToken)

	auth = root.want(200, "POST", "auth/token/create", fields{"type": "batch", "ttl": "10m"}).Auth
	if id, _ := auth["client_token"].(string); !strings.HasPrefix(id, "hvb.") || auth["accessor"] != "" {
		t.Errorf("batch token: got %v", auth)
	}
}

func TestCreateTokenRefused(t *testing.T) {
	s := vaulttest.Start(t)
	s.SetPolicy("minter", vaulttest.Rules{"auth/token/create": {"update"}})
	minter := vaulttest.TokenOptions{Policies: []string{"minter"}}
	limited, batch := minter, minter
	limited.NumUses, batch.Type = 5, vaulttest.Batch
	for _, tt := range []struct {
		name   string
		parent vaulttest.TokenOptions
		body   fields
		want   string
	}{
		{"more policies", minter, fields{"policies": []string{"root"}}, "child policies must be subset of parent"},
		{"orphan", minter, fields{"no_parent": true}, "root or sudo privileges required to create orphan token"},
		{"periodic", minter, fields{"period": 60}, "root or sudo privileges required to create periodic token"},
		{"type", minter, fields{"type": "x"}, "invalid 'token_type' value"},
		{"uses", minter, fields{"num_uses": -1}, "number of uses cannot be negative"},
		{"ttl", minter, fields{"ttl": "soon"}, `Field validation failed: error converting input for field "ttl": time: invalid duration "soon"`},
		{"of limited token", limited, nil, "restricted use token cannot generate child tokens"},
		{"of batch token", batch, nil, "batch tokens cannot create more tokens"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			newCaller(t, s, s.CreateToken(tt.parent).ID).want(400, "POST", "auth/token/create", tt.body, tt.want)
		})
	}
	parent := s.CreateToken(minter).ID
	auth := newCaller(t, s, parent).want(200, "POST", "auth/token/create", nil).Auth
	child, _ := auth["client_token"].(string)
	newCaller(t, s, child).want(200, "GET", "auth/token/lookup-self", nil)
	s.Revoke(parent)
	if s.TokenAlive(child) {
		t.Error("a child created over HTTP outlived its parent")
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
		"kv/x/aa":                "list",   // the only one
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

func TestPolicyChangesAtOnce(t *testing.T) {
	s := vaulttest.Start(t)
	s.CreateKey("kek")
	s.SetPolicy("kms", vaulttest.TransitPolicy("transit", "kek"))
	c := newCaller(t, s, s.CreateToken(vaulttest.TokenOptions{Policies: []string{"kms"}, NoDefaultPolicy: true}).ID)
	c.want(200, "GET", "transit/keys/kek", nil)
	c.want(403, "POST", "auth/token/revoke-self", nil, denied)
	s.DeletePolicy("kms")
	c.want(403, "GET", "transit/keys/kek", nil, denied)
	c.want(403, "GET", "auth/token/lookup-self", nil, denied)
}
