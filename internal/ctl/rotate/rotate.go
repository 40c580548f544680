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
	"slices"
	"strings"
	"time"

	"github.com/trousseau-io/trousseau/internal/ctl/fleet"
	"github.com/trousseau-io/trousseau/internal/ctl/vaultadmin"
)

// Options say which secret to rotate, and which nodes use it.
type Options struct {
	Vault *vaultadmin.Client
	// Nodes are all nodes that use the token; at least one.
	Nodes []fleet.Node
	// KVMount and KVPath are the path of the secret; Field is its field with the token.
	KVMount, KVPath, Field string
	// Token describes the new token.
	Token vaultadmin.TokenOptions
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
	// OldAccessor is the accessor of the old token; "" if there was no valid one.
	OldAccessor string `json:"oldAccessor,omitempty"`
	Nodes       []Node `json:"nodes"`
	// Revoked says whether the old token is revoked.
	Revoked bool `json:"oldRevoked"`
	// Stuck is why the rotation did not complete; "" if it did.
	Stuck string `json:"stuck,omitempty"`
}

// Node is the state of one node.
type Node struct {
	Node string `json:"node"`
	// Moved says whether it uses the token in the secret.
	Moved bool `json:"moved"`
	// Seconds is how long it took.
	Seconds float64 `json:"seconds,omitempty"`
	// Reason is why it has not moved.
	Reason string `json:"reason,omitempty"`
}

// secret is what is stored.
type secret struct {
	fields   map[string]any
	version  any
	accessor string // of the token in it; "" if there is no valid token
}

// read reads the secret, and looks up its token's accessor.
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
		return secret{}, fmt.Errorf("there is no secret %s in a KV engine of version 2: create it with `trousseauctl setup`, or check --kv-mount and --kv-path", o.Secret())
	}
	if token, _ := s.fields[o.Field].(string); token != "" {
		if s.accessor, err = o.Vault.AccessorOf(ctx, token); err != nil {
			return secret{}, fmt.Errorf("looking up the token in %s: %w", o.Secret(), err)
		}
	}
	return s, nil
}

// DryRun makes the checks that [Run] makes before it writes, and writes nothing.
func DryRun(ctx context.Context, o Options) (Report, error) {
	s, err := o.begin(ctx)
	r := Report{Secret: o.Secret(), DryRun: true, OldAccessor: s.accessor}
	for _, n := range o.Nodes {
		r.Nodes = append(r.Nodes, Node{Node: n.String()})
	}
	return r, err
}

// begin reads the secret, and checks that all nodes use it.
func (o Options) begin(ctx context.Context) (secret, error) {
	s, err := o.read(ctx)
	if err != nil {
		return secret{}, err
	}
	return s, o.follows(ctx, s.accessor)
}

// follows returns an error if a node does not answer or uses another token. It runs
// before anything is changed.
func (o Options) follows(ctx context.Context, accessor string) error {
	var problems []string
	for _, a := range fleet.Survey(ctx, fleet.Options{Nodes: o.Nodes}).Nodes {
		switch {
		case a.State == nil:
			problems = append(problems, a.Node+": "+a.Unreachable)
		case accessor != "" && a.State.Token.AccessorHash != "" && a.State.Token.AccessorHash != Hash(accessor):
			problems = append(problems, a.Node+": uses another token than the one in "+o.Secret()+
				": if a rotation was interrupted, use --resume; otherwise check its Vault Agent")
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(problems) > 0 {
		return errors.New("nothing was changed, because some nodes would not get the new token:\n  " + strings.Join(problems, "\n  "))
	}
	return nil
}

// Run rotates. If a node does not use the new token in time, the old token stays
// valid and Report.Stuck says why; the error is nil. The same holds if ctx ends after
// the new token is stored.
func Run(ctx context.Context, o Options) (Report, error) {
	old, err := o.begin(ctx)
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
	return o.finish(ctx, token.Accessor, old.accessor)
}

// Resume completes a rotation: it waits until all nodes use the token in the secret,
// and then revokes the token of oldAccessor.
func Resume(ctx context.Context, o Options, oldAccessor string) (Report, error) {
	s, err := o.read(ctx)
	if err != nil {
		return Report{}, err
	}
	switch s.accessor {
	case "":
		return Report{}, fmt.Errorf("the token in %s is revoked or expired: run this without --resume", o.Secret())
	case oldAccessor:
		return Report{}, fmt.Errorf("accessor %s is that of the token in %s, which is in use: give --resume the accessor of the old token", oldAccessor, o.Secret())
	}
	policies, known, err := o.Vault.Policies(ctx, oldAccessor)
	switch {
	case err != nil:
		return Report{}, err
	case !known:
		return Report{}, fmt.Errorf("vault knows no token with accessor %s: it is revoked or expired, and nothing is left to do", oldAccessor)
	case !slices.ContainsFunc(o.Token.Policies, func(p string) bool { return slices.Contains(policies, p) }):
		// A wrong accessor could be that of another token, such as the administrator's.
		return Report{}, fmt.Errorf("accessor %s is that of a token with policies %s, not one of Trousseau: check the accessor, or give --policy", oldAccessor, strings.Join(policies, ", "))
	}
	return o.finish(ctx, s.accessor, oldAccessor)
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
func (o Options) finish(ctx context.Context, accessor, oldAccessor string) (Report, error) {
	r := Report{Secret: o.Secret(), NewAccessor: accessor, OldAccessor: oldAccessor}
	if r.Nodes, r.Stuck = o.await(ctx, Hash(accessor)); r.Stuck != "" || oldAccessor == "" {
		return r, nil
	}
	if err := o.Vault.Revoke(ctx, oldAccessor); err != nil {
		r.Stuck = err.Error()
		return r, nil
	}
	r.Revoked = true
	return r, nil
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
