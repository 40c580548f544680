// SPDX-License-Identifier: Apache-2.0

package vaulttest

import (
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"time"
)

// systemTTL is Vault's default and maximum lease TTL.
const systemTTL = 768 * time.Hour

// The token types.
const (
	Service = "service"
	Batch   = "batch"
)

// WrappingPolicy is the only policy of a response-wrapping token, which has one use.
const WrappingPolicy = "response-wrapping"

// TokenOptions describes a token. The zero value is a renewable service token, child of the root token, with the
// default policy and Vault's default TTL of 768 h.
type TokenOptions struct {
	// Policies are names of policies; "root" makes a root token. A missing policy grants nothing.
	Policies []string
	// Rules is a policy for this token alone, in addition to Policies.
	Rules Rules
	// NoDefaultPolicy omits the policy "default", which lets a token look up and renew itself.
	NoDefaultPolicy bool

	// TTL is the time to live at creation and the default for renewals. It is ignored with Period.
	TTL time.Duration
	// Period makes a periodic token: each renewal extends it by Period, without a maximum.
	Period time.Duration
	// MaxTTL caps the total of TTL and renewals, and each Period. It is a setting of a mount or role, and lookup
	// does not show it. 0 means 768 h, the maximum.
	MaxTTL time.Duration
	// ExplicitMaxTTL is the token's absolute maximum lifetime, which lookup shows; 0 means none.
	ExplicitMaxTTL time.Duration
	// NotRenewable makes renew-self fail.
	NotRenewable bool
	// NumUses is how many requests may use the token; 0 means any number.
	NumUses int

	// Orphan makes a token that is not revoked with the root token.
	Orphan bool
	// Type is Service or Batch; empty means Service.
	Type string
	// Namespace is the token's namespace. The token cannot access parents, and its policies are relative to it.
	Namespace string
}

// Token is a token. ID is secret. Accessor is not secret; a batch token has none.
type Token struct {
	ID       string
	Accessor string
}

// token is the entry in Vault's token store.
type token struct {
	id, accessor, parent, namespace, kind string
	policies                              []string
	displayName, path                     string
	number                                int               // order of creation
	auth, role                            string            // key into store.auths, and role, if issued by a login
	metadata                              map[string]string // of the login; nil without one
	entity                                string            // ID of the identity that logged in

	created        time.Time
	ttl            time.Duration // as granted at creation; 0 means it never expires
	granted        time.Duration // as granted last
	period         time.Duration
	maxTTL         time.Duration // from mount or role
	explicitMaxTTL time.Duration
	renewable      bool
	numUses        int       // as granted; 0 means any number
	uses           int       // left; 0 means any number, -1 that this request is the last
	expires        time.Time // zero means never
	renewed        time.Time
}

// RootToken returns the root token, which never expires.
func (s *Server) RootToken() string { return s.store.rootToken }

// CreateToken creates a token.
func (s *Server) CreateToken(options TokenOptions) Token {
	st := s.store
	st.mu.Lock()
	defer st.mu.Unlock()
	parent := st.rootToken
	if options.Orphan {
		parent = ""
	}
	t, _ := st.newToken(options, parent)
	return Token{ID: t.id, Accessor: t.accessor}
}

// KMSToken creates an orphan token, valid for 768 h, that may use these keys of the default engine (see
// TransitPolicy). Most tests use it.
func (s *Server) KMSToken(keys ...string) string {
	return s.CreateToken(TokenOptions{Orphan: true, Rules: TransitPolicy("transit", keys...)}).ID
}

// Revoke revokes a token and its children. It ignores a token that does not exist.
func (s *Server) Revoke(id string) {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	s.store.revoke(id)
}

// TokenAlive reports whether a token is still accepted.
func (s *Server) TokenAlive(id string) bool {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	return s.store.alive(s.store.tokens[id], s.store.now())
}

// Tokens returns the live tokens in order of creation, without the root token and batch tokens, which Vault does
// not list either.
func (s *Server) Tokens() []Token {
	return s.store.liveTokens(func(t *token) bool { return t.id != s.store.rootToken })
}

func (st *store) liveTokens(wanted func(*token) bool) []Token {
	st.mu.Lock()
	defer st.mu.Unlock()
	var found []*token
	for _, t := range st.tokens {
		if t.kind == Service && wanted(t) && st.alive(t, st.now()) {
			found = append(found, t)
		}
	}
	slices.SortFunc(found, func(a, b *token) int { return a.number - b.number })
	var list []Token
	for _, t := range found {
		list = append(list, Token{ID: t.id, Accessor: t.accessor})
	}
	return list
}

func (st *store) newToken(o TokenOptions, parent string) (t *token, warnings []string) {
	now := st.now()
	t = &token{
		parent: parent, namespace: st.namespace(o.Namespace), kind: Service,
		displayName: "token", path: "auth/token/create",
		policies: slices.Clone(o.Policies),
		created:  now, period: o.Period, maxTTL: o.MaxTTL, explicitMaxTTL: o.ExplicitMaxTTL,
		renewable: !o.NotRenewable, numUses: o.NumUses, uses: o.NumUses,
	}
	st.minted++
	t.number = st.minted
	switch o.Type {
	case "", Service:
		t.id, t.accessor = "hvs."+rand.Text(), newAccessor()
	case Batch:
		// A batch token contains its own times, in whole seconds.
		t.kind, t.renewable, t.created = Batch, false, now.Truncate(time.Second)
		t.id = "hvb." + rand.Text() + rand.Text() + rand.Text()
	default:
		panic("vaulttest: creating a token: unknown type " + o.Type)
	}
	if o.Rules != nil {
		t.policies = append(t.policies, st.ownPolicy(rand.Text(), o.Rules))
	}
	root := slices.Contains(t.policies, "root")
	if root {
		t.policies = []string{"root"}
	}
	if !o.NoDefaultPolicy && !root {
		t.policies = append(t.policies, "default")
	}
	slices.Sort(t.policies)
	t.policies = slices.Compact(t.policies)
	if !root || o.TTL > 0 || o.Period > 0 {
		t.ttl, warnings, _ = t.calculateTTL(now, 0, o.TTL)
	} else if o.ExplicitMaxTTL > 0 {
		t.ttl = o.ExplicitMaxTTL
	}
	if t.granted = t.ttl; t.ttl > 0 {
		t.expires = t.created.Add(t.ttl)
	} else {
		t.renewable = false
	}
	st.tokens[t.id] = t
	st.secrets.add(t.id)
	return t, warnings
}

// calculateTTL returns a token's TTL at creation or renewal (sdk/framework/lease.go, CalculateTTL).
func (t *token) calculateTTL(now time.Time, increment, fallback time.Duration) (ttl time.Duration, warnings []string, ok bool) {
	maxTTL := systemTTL
	for _, limit := range []time.Duration{t.maxTTL, t.explicitMaxTTL} {
		if limit > 0 {
			maxTTL = min(maxTTL, limit)
		}
	}
	end := t.created.Truncate(time.Second).Add(maxTTL)
	switch {
	case t.period > 0:
		if ttl = t.period; ttl > maxTTL {
			warnings = append(warnings, fmt.Sprintf("period of %q exceeded the effective max_ttl of %q; period value is capped accordingly",
				human(ttl), human(maxTTL)))
			ttl = maxTTL
		}
		if t.explicitMaxTTL == 0 {
			return ttl, warnings, true
		}
		end = t.created.Truncate(time.Second).Add(t.explicitMaxTTL)
	case increment > 0:
		ttl = increment
	case fallback > 0:
		ttl = fallback
	default:
		ttl = systemTTL
	}
	left := end.Sub(now.Truncate(time.Second))
	if left <= 0 {
		return 0, nil, false
	}
	if ttl > left {
		warnings = append(warnings, fmt.Sprintf("TTL of %q exceeded the effective max_ttl of %q; TTL value is capped accordingly",
			human(ttl), human(left)))
		ttl = left
	}
	return ttl, warnings, true
}

// human prints a duration as Vault does: "1h" for what Go calls "1h0m0s".
func human(d time.Duration) string {
	text := d.String()
	if short, ok := strings.CutSuffix(text, "m0s"); ok {
		text = short + "m"
	}
	return strings.Replace(text, "h0m", "h", 1)
}

// alive reports whether Vault accepts a token: it exists and neither it nor a parent has expired.
func (st *store) alive(t *token, now time.Time) bool {
	switch {
	case t == nil || t.uses < 0, !t.expires.IsZero() && !now.Before(t.expires):
		return false
	case t.parent == "":
		return true
	}
	return st.alive(st.tokens[t.parent], now)
}

// expired reports whether a token exists but has expired.
func (st *store) expired(id string) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	t := st.tokens[id]
	return t != nil && !st.alive(t, st.now())
}

func (st *store) revoke(id string) {
	if st.tokens[id] == nil {
		return
	}
	delete(st.tokens, id)
	for child, t := range st.tokens {
		if t.parent == id {
			st.revoke(child)
		}
	}
}

func (st *store) byAccessor(accessor string) string {
	for id, t := range st.tokens {
		if t.accessor == accessor && accessor != "" {
			return id
		}
	}
	return ""
}

func newAccessor() string { return rand.Text()[:24] }
