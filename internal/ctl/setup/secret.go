// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/trousseau-io/trousseau/internal/ctl/finding"
	"github.com/trousseau-io/trousseau/internal/ctl/vaultadmin"
)

// secret plans the KV engine, and the secret with Trousseau's token.
func (p *planner) secret(ctx context.Context) error {
	o := p.options
	mounts, err := p.mounts(ctx, "sys/mounts")
	if err != nil {
		return err
	}
	m, mounted := mounts[o.KVMount+"/"]
	what := "KV engine, version 2, at " + o.KVMount + "/"
	switch {
	case !mounted:
		p.write(Create, what, nil, "vault secrets enable -path="+quote(o.KVMount)+" -version=2 kv",
			"sys/mounts/"+o.KVMount, map[string]any{"type": "kv", "options": map[string]any{"version": "2"}})
	case m.kind != "kv":
		return fmt.Errorf("the engine at %s/ is of type %s: name another path with --kv-mount", o.KVMount, m.kind)
	case m.version != "2":
		return fmt.Errorf("the KV engine at %s/ is KV version 1, not 2: name another path with --kv-mount, or see `vault kv enable-versioning -h`", o.KVMount)
	default:
		p.keep(what)
	}
	return p.config(ctx, mounted)
}

// config plans the secret itself. An existing secret stays unchanged.
func (p *planner) config(ctx context.Context, mounted bool) error {
	o := p.options
	path := o.KVMount + "/data/" + o.KVPath
	var fields map[string]any
	if mounted {
		found, err := p.vault.Read(ctx, path)
		if err != nil {
			return err
		}
		fields, _ = found["data"].(map[string]any)
	}
	what := "secret " + o.KVMount + "/" + o.KVPath
	key := o.Keys[0]
	if fields == nil {
		p.steps = append(p.steps, Step{
			Action: Create, State: Left, What: what,
			Details: []string{
				"transitkeyname=" + key, "vaultaddress=" + o.PluginAddress, "ttl=30s",
				"vaulttoken: a new orphan token with policy " + o.Policy + " and period " + o.Period,
			},
			Command: fmt.Sprintf(`token=$(vault token create -orphan -policy=%s -period=%s -field=token) &&
printf %%s "$token" |
  vault kv put -cas=0 %s \
    transitkeyname=%s \
    vaultaddress=%s \
    vaulttoken=- \
    ttl=30s`, quote(o.Policy), quote(o.Period), quote(o.KVMount+"/"+o.KVPath), quote(key), quote(o.PluginAddress)),
			apply: func(ctx context.Context) error { return p.writeConfig(ctx, path) },
		})
		return nil
	}
	// The daemon drops outer white space too.
	if has := strings.TrimSpace(text(fields["transitkeyname"])); has != key {
		return fmt.Errorf("%s names key %q, not %q: data that is encrypted with it could no longer be decrypted; give --key=%s first, or --cluster or another --kv-path for another cluster", what, has, key, has)
	}
	p.keep(what, "unchanged")
	return p.token(ctx, what, strings.TrimSpace(text(fields["vaulttoken"])))
}

// token finds out whether the token in the secret is valid.
func (p *planner) token(ctx context.Context, what, token string) error {
	const rotate = "issue a new one with trousseauctl rotate-token"
	if token == "" {
		p.find(finding.Error, "token-missing", what, "it has no vaulttoken",
			fmt.Sprintf("add an empty one (vault kv patch %s vaulttoken=), then %s", quote(strings.TrimPrefix(what, "secret ")), rotate))
		return nil
	}
	_, err := p.vault.Lookup(ctx, token)
	switch {
	case vaultadmin.CauseOf(err) == vaultadmin.Unknown:
		p.find(finding.Error, "token-dead", what, "its vaulttoken is revoked or expired", rotate)
	case vaultadmin.Denied(err) && vaultadmin.CauseOf(err) == "":
		p.warn("token-unknown", what, "whether its vaulttoken is valid is unknown: neither it nor you may look it up",
			"run this with a token that may update auth/token/lookup")
	default:
		return err
	}
	return nil
}

// readyWithin is the time limit for a KV engine to be ready after mounting.
const readyWithin = 15 * time.Second

// writeConfig creates a token and stores it. If that fails, it revokes the token.
func (p *planner) writeConfig(ctx context.Context, path string) error {
	o := p.options
	token, err := p.vault.CreateToken(ctx, vaultadmin.TokenOptions{Policies: []string{o.Policy}, Period: o.Period, Orphan: true})
	if err != nil {
		return err
	}
	body := map[string]any{
		"options": map[string]any{"cas": 0},
		"data": map[string]any{
			"transitkeyname": o.Keys[0], "vaultaddress": o.PluginAddress, "vaulttoken": token.ID(), "ttl": "30s",
		},
	}
	if err = p.writeWhenReady(ctx, path, body); err == nil {
		return nil
	}
	if !vaultadmin.Answered(err) {
		// The secret may have been written.
		return fmt.Errorf("%w; the token created for it has accessor %s", err, token.Accessor)
	}
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if revoked := p.vault.Revoke(clean, token.Accessor); revoked != nil {
		return errors.Join(err, fmt.Errorf("the token created for it is still valid; revoke it: vault token revoke -accessor %s: %w", token.Accessor, revoked))
	}
	return err
}

func (p *planner) writeWhenReady(ctx context.Context, path string, body map[string]any) error {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	again := time.NewTicker(200 * time.Millisecond)
	defer again.Stop()
	for {
		_, err := p.vault.Write(ctx, path, body)
		if vaultadmin.CauseOf(err) != vaultadmin.Upgrading {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-again.C:
		}
	}
}
