// SPDX-License-Identifier: Apache-2.0

package live

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v5"
	"go.uber.org/zap"

	"github.com/trousseau-io/trousseau/internal/config"
	"github.com/trousseau-io/trousseau/internal/vault"
	"github.com/trousseau-io/trousseau/internal/watch"
)

// Why a candidate was not adopted, beside the classes of package vault. All are
// metric labels.
const (
	classConfig = "config" // the bytes are no valid configuration
	// Adopting it would orphan data, for want of the transit engine, of the
	// active key's name, or of the key itself.
	classRefusedEngine = "refused_engine"
	classRefusedKey    = "refused_key"
	classRefusedVault  = "refused_vault"
)

// loadError is a candidate's failure with its class.
type loadError struct {
	class string
	err   error
}

func (e *loadError) Error() string { return e.err.Error() }
func (e *loadError) Unwrap() error { return e.err }

func refusef(class, format string, args ...any) error {
	return &loadError{class, fmt.Errorf(format, args...)}
}

func classOf(err error) string {
	var e *loadError
	if errors.As(err, &e) {
		return e.class
	}
	return string(vault.ClassOf(err))
}

// load turns each content into the current generation until ctx is done. The
// first load and every reload take this same path.
func (k *KEK) load(ctx context.Context) {
	var (
		content watch.Content
		said    string           // the failure last logged, with its content
		retry   <-chan time.Time // nil when only new content can help
	)
	pause := newBackoff(500*time.Millisecond, 30*time.Second)
	for {
		select {
		case <-ctx.Done():
			return
		case content = <-k.opts.Contents:
			pause.Reset()
		case <-retry:
		}
		retry = nil
		err := k.loadOnce(ctx, content)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			said = ""
			continue
		}
		k.metrics.failed(err)
		if what := content.Digest + err.Error(); what != said {
			said = what
			k.logFailure(err)
		}
		// Bytes that are wrong stay wrong; everything else may pass.
		if classOf(err) != classConfig {
			retry = time.After(pause.NextBackOff())
		}
	}
}

func (k *KEK) logFailure(err error) {
	fields := []zap.Field{zap.String("class", classOf(err)), zap.Error(err)}
	if gen := k.Current(); gen != nil {
		k.log.Warn("the new configuration is not used; the one before it keeps serving",
			append(fields, zap.Uint64("generation", gen.Number))...)
		return
	}
	k.note(nil, func(v *view) { v.trouble = err })
	k.log.Warn("there is no usable configuration yet; every request is refused until there is", fields...)
}

// loadOnce makes a candidate from content, proves it and adopts it.
func (k *KEK) loadOnce(ctx context.Context, content watch.Content) error {
	if active := k.Current(); active != nil && active.Digest == content.Digest {
		k.metrics.current()
		k.log.Info("the configuration is again the one in use", zap.Uint64("generation", active.Number))
		return nil
	}
	if content.Err != nil {
		return &loadError{classConfig, fmt.Errorf("reading the configuration: %w", content.Err)}
	}
	cfg, err := config.Parse(content.Main, content.Open)
	if err != nil {
		return &loadError{classConfig, fmt.Errorf("reading %s: %w", content.Path, err)}
	}
	client, err := vault.Dial(vault.Config{
		Addresses:  append([]string{cfg.Vault.Address}, cfg.Vault.Addresses...),
		Namespace:  cfg.Vault.Namespace,
		Mount:      cfg.Vault.TransitPath,
		Token:      cfg.Vault.Token.Reveal(),
		CACert:     cfg.Vault.CACert,
		ServerName: cfg.Vault.TLSServerName,
		ClientCert: cfg.Vault.ClientCert,
		ClientKey:  []byte(cfg.Vault.ClientKey.Reveal()),
		Metrics:    k.vault,
		Transport:  k.opts.Transport,
	})
	if err != nil {
		return &loadError{classConfig, err}
	}
	adopted := false
	defer func() {
		if !adopted {
			client.Close()
		}
	}()

	bounded, cancel := context.WithTimeout(ctx, k.opts.RequestTimeout)
	defer cancel()
	var candidate *Generation
	err = askAround(bounded, client, func(ctx context.Context) error {
		candidate, err = newGeneration(ctx, client, cfg.Vault.KeyNames)
		return err
	})
	if err != nil {
		return err
	}
	candidate.Digest = content.Digest
	// The prober may adopt a new key version meanwhile: then what the
	// candidate was checked against is no longer what it would replace.
	for !adopted {
		active := k.Current()
		if err := continuity(bounded, active, candidate); err != nil {
			return err
		}
		candidate.inherit(active)
		adopted = k.adopt(ctx, active, candidate, vault.Token{})
	}
	k.metrics.adopted()
	k.log.Info("configuration adopted", candidate.fields()...)
	k.lookUpToken(bounded, candidate)
	return nil
}

// continuity reports why adopting candidate in active's place would orphan what
// active has encrypted, nil if it would not.
func continuity(ctx context.Context, active, candidate *Generation) error {
	if active == nil {
		return nil
	}
	key := active.ID.Key
	if candidate.ID.Engine != active.ID.Engine {
		return refusef(classRefusedEngine, "the new configuration names the transit engine %s, but data is encrypted by %s: move back, or re-encrypt everything under another provider first",
			candidate.ID.Engine, active.ID.Engine)
	}
	if !slices.Contains(candidate.keys, key) {
		return refusef(classRefusedKey, "the new configuration does not list the key %s, under which data is encrypted: keep it in keynames, after the new first key", key)
	}
	if candidate.ID.Key == key && candidate.ID.Version < active.ID.Version {
		return vault.Errorf(vault.VersionTooNew, "vault at %s reports version %d of key %s, version %d is in use: that node lags behind, or Vault was restored from an older backup",
			candidate.client.Address(), candidate.ID.Version, key, active.ID.Version)
	}
	err := active.canary.check(ctx, candidate.client, key)
	switch vault.ClassOf(err) {
	case vault.Invalid, vault.KeyLost, vault.VersionTooOld:
		return refusef(classRefusedVault, "the new configuration's Vault cannot decrypt what the one in use encrypts; is it another Vault, or was the key made anew? %w", err)
	}
	return err
}

func newBackoff(first, longest time.Duration) *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval = first
	b.MaxInterval = longest
	return b
}
