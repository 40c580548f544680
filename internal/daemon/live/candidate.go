// SPDX-License-Identifier: Apache-2.0

package live

import (
	"context"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/trousseau-io/trousseau/internal/config"
	"github.com/trousseau-io/trousseau/internal/fault"
	"github.com/trousseau-io/trousseau/internal/upstream"
	"github.com/trousseau-io/trousseau/internal/vault"
)

// stragglers is how much longer than the first node the others may take to prove a
// candidate. It is adopted without those that take longer; they are checked later.
const stragglers = 500 * time.Millisecond

// newCandidate makes a client for cfg's Vault, logs in, and proves the newest
// version of the first key, in a way that orphans nothing that active encrypted.
// The caller adopts or discards the candidate.
func (k *KEK) newCandidate(ctx context.Context, cfg *config.Config, digest string, active *Generation) (*Generation, vault.Token, error) {
	if address := cfg.Vault.InTheClear(); address != "" && k.opts.RequireTLS {
		return nil, vault.Token{}, finalf(classConfig, "vault's address %s is not https, and --require-tls is set: the token would be sent unencrypted", address)
	}
	clients, err := k.dial(cfg)
	if err != nil {
		return nil, vault.Token{}, finalf(classConfig, "%w", err)
	}
	if err := checkNames(active, clients[0].Engine(), cfg); err != nil {
		return nil, vault.Token{}, err
	}
	var before *cluster
	if active != nil {
		before = active.cluster
	}
	c := k.newCluster(clients, cfg.Vault.KeyNames, before)
	candidate, token, err := k.logInAndProve(ctx, c, cfg, active)
	if err != nil {
		k.closeAfter(ctx, 0, c)
		return nil, vault.Token{}, err
	}
	candidate.Digest = digest
	return candidate, token, nil
}

func (k *KEK) dial(cfg *config.Config) ([]*vault.Client, error) {
	dial := upstream.Config(&cfg.Vault)
	dial.Metrics, dial.Transport = k.vault, k.opts.Transport
	return vault.Dial(dial)
}

func (k *KEK) logInAndProve(ctx context.Context, c *cluster, cfg *config.Config, active *Generation) (candidate *Generation, token vault.Token, err error) {
	err = c.any(ctx, k.opts.ProbeTimeout/3, func(ctx context.Context, n *node) error {
		var err error
		if token, err = n.Login(ctx); err == nil {
			c.serving.Store(n)
		}
		return err
	})
	if fault.ClassOf(err) == fault.Denied {
		return nil, token, &reloadError{class: classLogin, err: err, patient: cfg.Vault.Credential.Method == config.AppRole}
	}
	if err != nil {
		return nil, token, err
	}
	// A look-up that hangs must not keep a good configuration out. Another follows.
	if known, err := lookUp(ctx, c, k.opts.RequestTimeout/3); err == nil {
		token = known
	}
	if token.Uses != 0 {
		return nil, token, refusef(classToken, "the token is good for a limited number of requests, and each request uses one: issue one without num_uses (token_num_uses)")
	}
	if candidate, err = k.proveNodes(ctx, c, cfg, active); err != nil {
		return nil, token, err
	}
	return candidate, token, k.checkKeys(ctx, candidate)
}

// lookUp asks Vault about the token. Each node may take limit.
func lookUp(ctx context.Context, c *cluster, limit time.Duration) (token vault.Token, err error) {
	_ = c.any(ctx, limit, func(ctx context.Context, n *node) error {
		token, err = n.LookupSelf(ctx)
		if fault.ClassOf(err).Transient() {
			return err
		}
		return nil // policy may deny it, at each node
	})
	return token, err
}

// proveNodes proves cfg's first key at all nodes at the same time. One is
// sufficient; the others must then decrypt what it has encrypted.
func (k *KEK) proveNodes(ctx context.Context, c *cluster, cfg *config.Config, active *Generation) (*Generation, error) {
	bounded, cancel := context.WithTimeout(ctx, k.opts.ProbeTimeout)
	defer cancel()
	type proof struct {
		gen *Generation
		err error
	}
	proofs := make([]proof, len(c.nodes))
	var all sync.WaitGroup
	for i, n := range c.nodes {
		all.Go(func() {
			p := &proofs[i]
			if p.gen, p.err = proveFirst(bounded, c, n, cfg, active); p.err == nil {
				time.AfterFunc(stragglers, cancel)
			}
		})
	}
	all.Wait()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}

	var candidate *Generation
	var err error
	var same []*node
	for i, p := range proofs {
		switch {
		case p.err != nil:
			// None has been proven, so it is a lost key only if all say so.
			if err == nil || weight(p.err) < weight(err) {
				err = p.err
			}
		case candidate == nil:
			candidate = p.gen
			c.record(c.nodes[i], nil)
		default:
			same = append(same, c.nodes[i])
		}
	}
	if candidate == nil {
		return nil, err
	}
	for i, p := range proofs {
		if fault.ClassOf(p.err) == fault.Canceled {
			p.err = fault.Errorf(fault.Timeout, "proving the key took more than %s longer than at another node", stragglers)
		}
		if p.err != nil {
			c.record(c.nodes[i], p.err)
		}
	}
	k.checkNodes(ctx, candidate, same)
	return candidate, nil
}

// proveFirst proves cfg's first key at one node and, if there is an active
// generation, that the node holds the key that encrypted for it.
func proveFirst(ctx context.Context, c *cluster, n *node, cfg *config.Config, active *Generation) (*Generation, error) {
	// If policy allows it, encrypting with a key that does not exist creates one.
	name := cfg.Vault.KeyNames[0]
	_, err := n.ReadKey(ctx, name)
	if fault.ClassOf(err) == fault.KeyLost {
		// A proxy or another engine can answer so too. Here only Vault can.
		err = n.MayDecrypt(ctx, name)
	}
	if err != nil && fault.ClassOf(err) != fault.Denied {
		return nil, err
	}
	candidate, err := proveNewest(ctx, c, n, cfg, true)
	if err != nil {
		return nil, err
	}
	return candidate, checkContinuity(ctx, n, active, candidate)
}

// checkNodes checks at the same time whether nodes hold gen's key, and records it.
func (k *KEK) checkNodes(ctx context.Context, gen *Generation, nodes []*node) {
	bounded, cancel := context.WithTimeout(ctx, k.opts.ProbeTimeout)
	defer cancel()
	var all sync.WaitGroup
	for _, n := range nodes {
		all.Go(func() {
			if err := gen.heldBy(bounded, n); ctx.Err() == nil {
				gen.cluster.recordCheck(n, err)
			}
		})
	}
	all.Wait()
}

// checkKeys refuses a candidate whose token may not decrypt with each of its keys.
func (k *KEK) checkKeys(ctx context.Context, candidate *Generation) error {
	bounded, cancel := context.WithTimeout(ctx, k.opts.ProbeTimeout)
	defer cancel()
	n := candidate.cluster.serving.Load()
	for _, key := range candidate.keys[1:] {
		switch err := n.MayDecrypt(bounded, key); fault.ClassOf(err) {
		case "":
		case fault.KeyLost, fault.KeyUnusable:
			// Nothing can be under it, or everything is lost already: the other keys
			// must not suffer.
			k.log.Warn("key in keynames cannot decrypt", zap.String("key", key), zap.Error(err))
		default:
			return err
		}
	}
	return nil
}

// checkNames reports why cfg's names alone would orphan what active has encrypted;
// nil if they would not.
func checkNames(active *Generation, engine string, cfg *config.Config) error {
	if active == nil {
		return nil
	}
	key, before, after := active.ID.Key, active.binding, upstream.BindingOf(&cfg.Vault)
	switch {
	case engine != active.ID.Engine:
		return finalf(classRefusedEngine, "the new configuration names the transit engine %s, but data is encrypted by %s: move back, or re-encrypt everything under another provider first",
			engine, active.ID.Engine)
	case !slices.Contains(cfg.Vault.KeyNames, key):
		return finalf(classRefusedKey, "the new configuration does not list the key %s, under which data is encrypted: keep it in keynames, after the new first key", key)
	case before.Data != nil && string(before.Data) != string(after.Data):
		return finalf(classRefusedBinding, "the new configuration changes or removes associatedData, but data is bound to the current value: restore it")
	case before.Data == nil && after.Required:
		return finalf(classRefusedBinding, "the new configuration sets requireAssociatedData, but no data is bound yet: set associatedData alone, re-encrypt everything, then require it")
	}
	return nil
}

// checkContinuity reports why adopting candidate, proven at n, in active's place
// would orphan what active has encrypted; nil if it would not.
func checkContinuity(ctx context.Context, n *node, active, candidate *Generation) error {
	if active == nil {
		return nil
	}
	if candidate.ID.Key == active.ID.Key && candidate.ID.Version < active.ID.Version {
		return fault.Errorf(fault.VersionTooNew, "vault at %s reports version %d of key %s, version %d is in use: that node lags behind, or Vault was restored from an older backup",
			n.Address(), candidate.ID.Version, active.ID.Key, active.ID.Version)
	}
	err := active.heldBy(ctx, n)
	if fault.ClassOf(err) == fault.KeyLost {
		return refusef(classRefusedVault, "the new configuration's Vault cannot decrypt what the current one encrypts: check whether it is another Vault or the key was recreated: %w", err)
	}
	return err
}

// adoptChecked adopts a candidate in active's place. If the prober has adopted
// another generation meanwhile, the candidate is checked against that one.
func (k *KEK) adoptChecked(ctx context.Context, active, candidate *Generation, token vault.Token) error {
	for candidate.inherit(active); !k.adopt(ctx, active, candidate, token); candidate.inherit(active) {
		active = k.Current()
		bounded, cancel := context.WithTimeout(ctx, k.opts.ProbeTimeout)
		err := checkContinuity(bounded, candidate.cluster.serving.Load(), active, candidate)
		cancel()
		if err != nil {
			return err
		}
	}
	return nil
}
