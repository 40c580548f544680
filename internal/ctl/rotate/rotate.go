// SPDX-License-Identifier: Apache-2.0

// Package rotate replaces the token that Trousseau has from a KV secret: a new one
// is written, every node is awaited, and only then the old one is revoked.
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

// Options say what is rotated, and who must follow.
type Options struct {
	Vault *vaultadmin.Client
	// Nodes are all those whose Trousseau has the token; at least one.
	Nodes []fleet.Node
	// KVMount and KVPath are where the secret is, Field the one with the token.
	KVMount, KVPath, Field string
	// Token is what the new one is to be.
	Token vaultadmin.TokenOptions
	// Timeout is how long the nodes may take, Interval how often they are asked.
	Timeout, Interval time.Duration
	// Moved is called as each node serves the new token; nil for nobody.
	Moved func(Node)
}

// Secret names the secret as the vault command does.
func (o Options) Secret() string { return o.KVMount + "/" + o.KVPath }

func (o Options) path() string { return o.KVMount + "/data/" + o.KVPath }

// Report is what a rotation did, or would do.
type Report struct {
	// Secret is the KV secret.
	Secret string `json:"secret"`
	// DryRun is whether nothing was written.
	DryRun bool `json:"dryRun,omitempty"`
	// NewAccessor is that of the token in the secret now; "" in a dry run.
	NewAccessor string `json:"newAccessor,omitempty"`
	// OldAccessor is that of the token before; "" if there was none alive.
	OldAccessor string `json:"oldAccessor,omitempty"`
	Nodes       []Node `json:"nodes"`
	// Revoked is whether the old token is revoked.
	Revoked bool `json:"oldRevoked"`
	// Stuck is why the old token, though known, is not revoked.
	Stuck string `json:"stuck,omitempty"`
}

// Node is one that must follow.
type Node struct {
	Node string `json:"node"`
	// Moved is whether it serves the token that is in the secret.
	Moved bool `json:"moved"`
	// Seconds is how long that took.
	Seconds float64 `json:"seconds,omitempty"`
	// Reason is why it has not moved.
	Reason string `json:"reason,omitempty"`
}

// secret is what is stored.
type secret struct {
	fields   map[string]any
	version  any
	accessor string // of the token in it; "" for none that is alive
}

// read reads the secret, and asks for its token's accessor.
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
		return secret{}, fmt.Errorf("there is no secret %s in a KV engine, version 2: make it with `trousseauctl setup`, or see --kv-mount and --kv-path", o.Secret())
	}
	if token, _ := s.fields[o.Field].(string); token != "" {
		if s.accessor, err = o.Vault.AccessorOf(ctx, token); err != nil {
			return secret{}, fmt.Errorf("asking whose token %s has: %w", o.Secret(), err)
		}
	}
	return s, nil
}

// DryRun looks at all that [Run] looks at before it writes, and writes nothing.
func DryRun(ctx context.Context, o Options) (Report, error) {
	s, err := o.begin(ctx)
	r := Report{Secret: o.Secret(), DryRun: true, OldAccessor: s.accessor}
	for _, n := range o.Nodes {
		r.Nodes = append(r.Nodes, Node{Node: n.String()})
	}
	return r, err
}

// begin reads the secret, and refuses if a node could not follow.
func (o Options) begin(ctx context.Context) (secret, error) {
	s, err := o.read(ctx)
	if err != nil {
		return secret{}, err
	}
	return s, o.follows(ctx, s.accessor)
}

// follows returns why a node would not be seen to follow, before anything is
// changed.
func (o Options) follows(ctx context.Context, accessor string) error {
	var problems []string
	for _, a := range fleet.Survey(ctx, fleet.Options{Nodes: o.Nodes}).Nodes {
		switch {
		case a.State == nil:
			problems = append(problems, a.Node+": "+a.Unreachable)
		case accessor != "" && a.State.Token.AccessorHash != "" && a.State.Token.AccessorHash != Hash(accessor):
			problems = append(problems, a.Node+": serves another token than the one in "+o.Secret()+
				": if a rotation was interrupted go on with --resume, else see what its agent does")
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(problems) > 0 {
		return errors.New("nothing is changed, because not every node would follow:\n  " + strings.Join(problems, "\n  "))
	}
	return nil
}

// Run rotates. If a node has not moved in time the old token stays alive and
// Report.Stuck says why: that is no error. The same goes for the end of ctx once
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

// Resume goes on with a rotation whose nodes did not all move: it awaits the token
// that is in the secret, and revokes the one of an accessor.
func Resume(ctx context.Context, o Options, oldAccessor string) (Report, error) {
	s, err := o.read(ctx)
	if err != nil {
		return Report{}, err
	}
	switch s.accessor {
	case "":
		return Report{}, fmt.Errorf("the token in %s is dead: make another one, without --resume", o.Secret())
	case oldAccessor:
		return Report{}, fmt.Errorf("accessor %s is that of the token in %s, which is in use: --resume takes the old one's", oldAccessor, o.Secret())
	}
	policies, known, err := o.Vault.Policies(ctx, oldAccessor)
	switch {
	case err != nil:
		return Report{}, err
	case !known:
		return Report{}, fmt.Errorf("vault knows no token of accessor %s: it has been revoked, or has expired, and nothing is left to do", oldAccessor)
	case !slices.ContainsFunc(o.Token.Policies, func(p string) bool { return slices.Contains(policies, p) }):
		// A slip would revoke somebody else's, perhaps the administrator's own.
		return Report{}, fmt.Errorf("accessor %s is that of a token with policy %s, and none of Trousseau's: see whether it is the right one, or --policy", oldAccessor, strings.Join(policies, ", "))
	}
	return o.finish(ctx, s.accessor, oldAccessor)
}

// store writes the token, and leaves the other fields as they are.
func (o Options) store(ctx context.Context, old secret, token vaultadmin.Token) error {
	fields := maps.Clone(old.fields)
	fields[o.Field] = token.ID()
	_, err := o.Vault.Write(ctx, o.path(), after(old, fields))
	if err == nil {
		return nil
	}
	// What was asked for may not be left alone because the caller goes away.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if !vaultadmin.Answered(err) {
		// Vault may still be at it, and would store a token that is revoked by then.
		// It does not once the secret has another version, from this write or any.
		_, _ = o.Vault.Write(ctx, o.path(), after(old, old.fields))
		now, readErr := o.read(ctx)
		switch {
		case readErr == nil && now.fields[o.Field] == token.ID():
			return nil
		case readErr != nil || now.version == old.version:
			return fmt.Errorf("%w; whether it was stored is not known: the new token has accessor %s", err, token.Accessor)
		}
	}
	if revoked := o.Vault.Revoke(ctx, token.Accessor); revoked != nil {
		return errors.Join(err, fmt.Errorf("and the new token is still alive: vault token revoke -accessor %s: %w", token.Accessor, revoked))
	}
	return fmt.Errorf("%w (the new token is revoked, the old one still in use)", err)
}

// finish awaits the nodes and revokes the old token.
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

// Hash is an accessor as Trousseau's metric has it.
func Hash(accessor string) string {
	sum := sha256.Sum256([]byte(accessor))
	return hex.EncodeToString(sum[:])
}

// after is the request to store fields as the version of a secret after old, if
// there is no other one meanwhile.
func after(old secret, fields map[string]any) map[string]any {
	return map[string]any{"options": map[string]any{"cas": old.version}, "data": fields}
}
