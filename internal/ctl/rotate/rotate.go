// SPDX-License-Identifier: Apache-2.0

// Package rotate replaces the token that Trousseau gets from a KV secret: it writes a
// new one, waits until every node uses it, and only then revokes the old one.
package rotate

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/trousseau-io/trousseau/internal/ctl/finding"
	"github.com/trousseau-io/trousseau/internal/ctl/fleet"
	"github.com/trousseau-io/trousseau/internal/ctl/vaultadmin"
)

// Options say which secret to rotate, and which nodes use it.
type Options struct {
	Vault *vaultadmin.Client
	// Nodes are all nodes that use the token, and Find how to find them, which also
	// says which API servers there are. One of them is needed.
	Nodes []fleet.Node
	Find  func(context.Context) (fleet.Members, error)
	// AllNodes says that nobody is left out, where the cluster cannot tell.
	AllNodes bool
	// KVMount and KVPath are the path of the secret; Field is its field with the token.
	KVMount, KVPath, Field string
	// Token describes the new token.
	Token vaultadmin.TokenOptions
	// AnyPolicies revokes the old token even if its policies are not Token's.
	AnyPolicies bool
	// Timeout is the time limit for the nodes, Interval the time between two surveys.
	Timeout, Interval time.Duration
	// Moved is called for each node when it uses the new token; may be nil.
	Moved func(Node)
}

// Secret returns the secret's path as the vault command takes it.
func (o Options) Secret() string { return o.KVMount + "/" + o.KVPath }

func (o Options) path() string { return o.KVMount + "/data/" + o.KVPath }

// Report is the result of a rotation or of a dry run.
type Report struct {
	// Secret is the KV secret.
	Secret string `json:"secret"`
	// DryRun says that nothing was written.
	DryRun bool `json:"dryRun,omitempty"`
	// NewAccessor is the accessor of the new token; "" in a dry run.
	NewAccessor string `json:"newAccessor,omitempty"`
	// OldAccessor is the accessor of the old token; "" if there is none to revoke.
	OldAccessor string `json:"oldAccessor,omitempty"`
	// NoOld is why there is no old token to revoke; "" if there is one.
	NoOld string `json:"noOldToken,omitempty"`
	Nodes []Node `json:"nodes"`
	// Revoked says whether the old token is revoked.
	Revoked bool `json:"oldRevoked"`
	// Stuck is why the rotation did not complete; "" if it did.
	Stuck    string            `json:"-"`
	Findings []finding.Finding `json:"-"`
}

// Node is the state of one node.
type Node struct {
	Node string `json:"node"`
	// Moved says whether it uses the token in the secret.
	Moved bool `json:"moved"`
	// Serves says whether it can encrypt and decrypt.
	Serves bool `json:"serves"`
	// Seconds is how long it took until both were so.
	Seconds float64 `json:"seconds,omitempty"`
	// Reason is why they are not.
	Reason string `json:"reason,omitempty"`
}

// secret is what is stored.
type secret struct {
	fields  map[string]any
	version any
	token   vaultadmin.Info // what is in it
	noToken string          // why the token cannot be revoked; "" if it can be
}

// read reads the secret, and looks up its token.
func (o Options) read(ctx context.Context) (secret, error) {
	found, err := o.Vault.Read(ctx, o.path())
	if err != nil {
		return secret{}, err
	}
	var s secret
	s.fields, _ = found["data"].(map[string]any)
	metadata, _ := found["metadata"].(map[string]any)
	s.version = metadata["version"]
	if s.fields == nil || s.version == nil {
		return secret{}, o.absent(ctx)
	}
	token, isText := s.fields[o.Field].(string)
	// The daemon drops outer white space too.
	token = strings.TrimSpace(token)
	switch {
	case !isText:
		return secret{}, o.wrongField(s)
	case o.Vault.Uses(token):
		return secret{}, o.yours()
	case token == "":
		s.noToken = "the secret had no token"
		return s, nil
	}
	s.token, err = o.Vault.Lookup(ctx, token)
	var refused *vaultadmin.Error
	switch {
	case errors.As(err, &refused) && !looksLikeToken.MatchString(token):
		// Vault answers 500 for a text such as an address: what is behind its last dot
		// is no namespace.
		return secret{}, o.wrongField(s)
	case vaultadmin.CauseOf(err) == vaultadmin.Unknown:
		s.noToken = "the old token was revoked or expired"
	case vaultadmin.Denied(err) && vaultadmin.CauseOf(err) == "":
		return secret{}, fmt.Errorf("neither the token in %s nor you may look it up, so it may be valid, and could not be revoked: use a token that may update auth/token/lookup", o.Secret())
	case err != nil:
		return secret{}, fmt.Errorf("looking up the token in %s: %w", o.Secret(), err)
	case s.token.Accessor == "":
		s.noToken = "the old token is a batch token, which ends by itself"
	}
	return s, nil
}

// looksLikeToken matches the tokens that Vault and OpenBao make. Others can only be told
// from the values of other fields while they are valid.
var looksLikeToken = regexp.MustCompile(`^(hv)?[sbr]\.`)

// wrongField names the fields of the secret, but no value.
func (o Options) wrongField(s secret) error {
	return fmt.Errorf("%s has no token in field %s: check --field; its fields are %s", o.Secret(), o.Field, strings.Join(slices.Sorted(maps.Keys(s.fields)), ", "))
}

func (o Options) yours() error {
	return fmt.Errorf("the token in %s is your own, and revoking it would lock you out: log in to Vault with another one", o.Secret())
}

// absent says why there is no secret.
func (o Options) absent(ctx context.Context) error {
	// Everybody who may read below a mount may read this.
	mount, err := o.Vault.Read(ctx, "sys/internal/ui/mounts/"+o.KVMount)
	if err != nil && !vaultadmin.Denied(err) {
		return err
	}
	options, _ := mount["options"].(map[string]any)
	if mount["type"] == "kv" && options["version"] != "2" {
		return fmt.Errorf("the KV engine at %s/ is KV version 1, not 2: name another one with --kv-mount, or see `vault kv enable-versioning -h`", o.KVMount)
	}
	return fmt.Errorf("there is no secret %s in a KV engine of version 2: create it with `trousseauctl setup`, or check --cluster, --kv-mount and --kv-path", o.Secret())
}

// DryRun makes the checks that [Run] makes before it writes, and writes nothing.
func DryRun(ctx context.Context, o Options) (Report, error) {
	s, nodes, err := o.begin(ctx)
	r := Report{Secret: o.Secret(), DryRun: true, OldAccessor: s.token.Accessor, NoOld: s.noToken, Nodes: nodes}
	r.judge()
	return r, err
}

// begin reads the secret, and checks that its token may be revoked and that all nodes
// use it.
func (o Options) begin(ctx context.Context) (secret, []Node, error) {
	s, err := o.read(ctx)
	if err != nil {
		return secret{}, nil, err
	}
	self, err := o.Vault.Self(ctx)
	if err != nil && !vaultadmin.Denied(err) {
		return secret{}, nil, err
	}
	if !o.Token.Orphan && !self.Orphan {
		// Vault does not tell whose child a token is, and revokes children with their parent.
		return secret{}, nil, errors.New("--orphan=false: the new token would end with your own one, which has a parent, maybe the token to revoke: leave it out, or log in to Vault")
	}
	if s.noToken == "" {
		if err := o.mayRevoke("the token in "+o.Secret(), s.token, self); err != nil {
			return secret{}, nil, err
		}
	}
	nodes, err := o.follows(ctx, s.token.Accessor)
	return s, nodes, err
}

// mayRevoke returns an error if a token is not only Trousseau's.
func (o Options) mayRevoke(what string, token, self vaultadmin.Info) error {
	usual := func(policy string) bool {
		return slices.ContainsFunc(o.Token.Policies, func(p string) bool { return strings.EqualFold(p, policy) })
	}
	others := slices.DeleteFunc(slices.Clone(token.Policies), func(p string) bool { return p == "default" || usual(p) })
	switch {
	case token.Accessor == self.Accessor:
		return o.yours()
	case o.AnyPolicies:
		return nil
	case len(others) > 0:
		return fmt.Errorf("%s has policy %s, not only %s, so others may use it: if that is Trousseau's policy, name it with --policy; to revoke the token anyway, give --any-policies",
			what, strings.Join(others, ", "), strings.Join(o.Token.Policies, ", "))
	case !slices.ContainsFunc(token.Policies, usual):
		return fmt.Errorf("%s does not have policy %s, so it is not Trousseau's: check the names; to revoke it anyway, give --any-policies", what, strings.Join(o.Token.Policies, ", "))
	}
	return nil
}

// follows returns the nodes, or an error if one does not answer or uses another token.
// It runs before anything is changed.
func (o Options) follows(ctx context.Context, accessor string) (nodes []Node, err error) {
	var problems []string
	survey := o.survey(ctx)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if missing := o.leftOut(survey); missing != "" {
		return nil, fmt.Errorf("nothing was changed, because a node could lose its token: %s", missing)
	}
	for _, a := range survey.Nodes {
		n := Node{Node: a.Node, Serves: a.Health() == "healthy"}
		switch {
		case a.State == nil:
			problems = append(problems, a.Node+": "+a.Unreachable)
		case accessor != "" && a.State.Token.AccessorHash != "" && a.State.Token.AccessorHash != Hash(accessor):
			problems = append(problems, a.Node+": uses another token than the one in "+o.Secret()+
				": if a rotation was interrupted, use --resume; otherwise check its Vault Agent")
		case !n.Serves:
			n.Reason = "it does not serve: " + strings.Join(a.State.Reasons, "; ")
		}
		nodes = append(nodes, n)
	}
	if len(problems) > 0 {
		return nil, errors.New("nothing was changed, because some nodes would not get the new token:\n  " + strings.Join(problems, "\n  "))
	}
	return nodes, nil
}

func (o Options) survey(ctx context.Context) fleet.Report {
	return fleet.Survey(ctx, fleet.Options{Nodes: o.Nodes, Find: o.Find})
}

// leftOut says why a node may be missing; "" if none is.
func (o Options) leftOut(r fleet.Report) string {
	missing := r.LeftOut()
	if missing == "" && len(r.APIServers) == 0 && !o.AllNodes {
		missing = "the nodes are not compared with the cluster's API servers: give --kubeconfig or, if you have named every node, --all-nodes"
	}
	return missing
}

// Run rotates. If a node does not serve with the new token in time, the old token stays
// valid and Report.Stuck says why; the error is nil. The same holds if ctx ends after
// the new token is stored.
func Run(ctx context.Context, o Options) (Report, error) {
	old, _, err := o.begin(ctx)
	if err != nil {
		return Report{}, err
	}
	token, err := o.Vault.CreateToken(ctx, o.Token)
	if err != nil {
		return Report{}, err
	}
	if err := o.store(ctx, old, token); err != nil {
		return Report{}, err
	}
	return o.finish(ctx, token.Accessor, old.token.Accessor, old.noToken), nil
}

// Resume completes a rotation: it waits until all nodes use the token in the secret,
// and then revokes the token of oldAccessor.
func Resume(ctx context.Context, o Options, oldAccessor string) (Report, error) {
	s, err := o.read(ctx)
	if err != nil {
		return Report{}, err
	}
	switch s.token.Accessor {
	case "":
		return Report{}, fmt.Errorf("there is no valid token in %s: run this without --resume", o.Secret())
	case oldAccessor:
		return Report{}, fmt.Errorf("accessor %s is that of the token in %s, which is in use: give --resume the accessor of the old token", oldAccessor, o.Secret())
	}
	old, err := o.Vault.LookupAccessor(ctx, oldAccessor)
	switch {
	case vaultadmin.CauseOf(err) == vaultadmin.Unknown:
		return Report{}, fmt.Errorf("vault knows no token with accessor %s: it is revoked or expired, and nothing is left to do", oldAccessor)
	case err != nil:
		return Report{}, err
	}
	self, err := o.Vault.Self(ctx)
	if err != nil && !vaultadmin.Denied(err) {
		return Report{}, err
	}
	// A wrong accessor could be that of another token, such as the administrator's.
	if err := o.mayRevoke("the token of accessor "+oldAccessor, old, self); err != nil {
		return Report{}, err
	}
	if o.AnyPolicies && !s.token.Orphan {
		// With only Trousseau's policies a token has no children.
		return Report{}, fmt.Errorf("the token in %s is not an orphan, and the old token may be its parent, which would take it along: run this without --resume", o.Secret())
	}
	return o.finish(ctx, s.token.Accessor, oldAccessor, ""), nil
}

// store writes the token, and keeps the other fields.
func (o Options) store(ctx context.Context, old secret, token vaultadmin.Token) error {
	fields := maps.Clone(old.fields)
	fields[o.Field] = token.ID()
	_, err := o.Vault.Write(ctx, o.path(), after(old, fields))
	if err == nil {
		return nil
	}
	// Clean up even if the caller has gone.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if !vaultadmin.Answered(err) {
		// Vault may still execute the write, and store a token that we have revoked.
		// Writing another version first makes that write fail its check-and-set.
		_, _ = o.Vault.Write(ctx, o.path(), after(old, old.fields))
		now, readErr := o.read(ctx)
		switch {
		case readErr == nil && now.fields[o.Field] == token.ID():
			return nil
		case readErr != nil || now.version == old.version:
			return fmt.Errorf("%w; the secret may or may not have been written: the new token has accessor %s", err, token.Accessor)
		}
	}
	if revoked := o.Vault.Revoke(ctx, token.Accessor); revoked != nil {
		return errors.Join(err, fmt.Errorf("the new token is still valid; revoke it: vault token revoke -accessor %s: %w", token.Accessor, revoked))
	}
	return fmt.Errorf("%w (the new token was revoked, the old one is still in use)", err)
}

// finish waits for the nodes and revokes the old token.
func (o Options) finish(ctx context.Context, accessor, oldAccessor, noOld string) Report {
	r := Report{Secret: o.Secret(), NewAccessor: accessor, OldAccessor: oldAccessor, NoOld: noOld}
	r.Nodes, r.Stuck = o.await(ctx, Hash(accessor))
	if r.Stuck == "" && oldAccessor != "" {
		if err := o.Vault.Revoke(ctx, oldAccessor); err != nil {
			r.Stuck = err.Error()
		}
		r.Revoked = r.Stuck == ""
	}
	r.judge()
	return r
}

// judge derives the findings.
func (r *Report) judge() {
	if r.Stuck != "" {
		f := finding.Finding{ID: "rotation-incomplete", Severity: finding.Error, Subject: r.Secret, Text: r.Stuck}
		if r.OldAccessor != "" {
			f.Do = "the old token is still valid; fix this, then run rotate-token with --resume " + r.OldAccessor
		}
		r.Findings = append(r.Findings, f)
	}
	for _, n := range r.Nodes {
		id := "node-does-not-serve"
		if !r.DryRun && !n.Moved {
			id = "node-keeps-old-token"
		}
		if n.Reason != "" {
			r.Findings = append(r.Findings, finding.Finding{ID: id, Severity: finding.Error, Subject: n.Node, Text: n.Reason})
		}
	}
}

// Hash returns the hash of an accessor, as in Trousseau's metric.
func Hash(accessor string) string {
	sum := sha256.Sum256([]byte(accessor))
	return hex.EncodeToString(sum[:])
}

// after returns the request that stores fields as the next version of the secret. It
// fails if the secret has changed.
func after(old secret, fields map[string]any) map[string]any {
	return map[string]any{"options": map[string]any{"cas": old.version}, "data": fields}
}
