// SPDX-License-Identifier: Apache-2.0

package live

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
	"go.uber.org/zap"

	"github.com/trousseau-io/trousseau/internal/config"
	"github.com/trousseau-io/trousseau/internal/daemon/watch"
	"github.com/trousseau-io/trousseau/internal/fault"
)

// Why a candidate was not adopted, beside the classes of package vault. All are
// metric labels.
const (
	classConfig = "config"        // the bytes are no valid configuration
	classLogin  = "login_denied"  // Vault refuses the credential
	classToken  = "refused_token" // the token would not last
	// Adopting it would orphan data, for want of the transit engine, of the
	// active key's name, of its associated data, or of the key itself.
	classRefusedEngine  = "refused_engine"
	classRefusedKey     = "refused_key"
	classRefusedBinding = "refused_associated_data"
	classRefusedVault   = "refused_vault"
)

// loadError is a candidate's failure with its class.
type loadError struct {
	class string
	err   error
	// patient means that trying again soon does harm.
	patient bool
}

func (e *loadError) Error() string { return e.err.Error() }
func (e *loadError) Unwrap() error { return e.err }

func refusef(class, format string, args ...any) error {
	return &loadError{class: class, err: fmt.Errorf(format, args...)}
}

func classOf(err error) string {
	var e *loadError
	if errors.As(err, &e) {
		return e.class
	}
	return string(fault.ClassOf(err))
}

// load turns each content into the current generation until ctx is done. The
// first load and every reload take this same path.
func (k *KEK) load(ctx context.Context) {
	var (
		content watch.Content
		said    string           // the failure last logged, with its content
		retry   <-chan time.Time // nil when only new content can help
	)
	pause := newPause()
	for {
		select {
		case <-ctx.Done():
			return
		case content = <-k.opts.Contents:
			pause.reset()
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
		k.metrics.reloads.WithLabelValues(classOf(err)).Inc()
		k.update(func(v *view) {
			v.refused = classOf(err)
			if v.gen == nil {
				v.trouble = err
			}
		})
		if what := content.Digest + err.Error(); what != said {
			said = what
			k.logFailure(err)
		}
		// Bytes that are wrong stay wrong; everything else may pass.
		if classOf(err) != classConfig {
			retry = time.After(pause.after(err))
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
	k.log.Warn("there is no usable configuration yet; every request is refused until there is", fields...)
}

// loadOnce makes a candidate from content and adopts it.
func (k *KEK) loadOnce(ctx context.Context, content watch.Content) error {
	if active := k.Current(); active != nil && active.Digest == content.Digest {
		k.update(func(v *view) { v.refused = "" })
		k.log.Info("the configuration is again the one in use", zap.Uint64("generation", active.Number))
		return nil
	}
	if content.Err != nil {
		return &loadError{class: classConfig, err: fmt.Errorf("reading the configuration: %w", content.Err)}
	}
	cfg, err := config.Parse(content.Main, content.Open)
	if err != nil {
		return &loadError{class: classConfig, err: fmt.Errorf("reading %s: %w", content.Path, err)}
	}
	candidate, token, err := k.prepare(ctx, cfg, content.Digest)
	if err != nil {
		return err
	}
	// The prober may adopt another generation meanwhile: then what the candidate
	// was checked against is no longer what it would replace.
	for adopted := false; !adopted; {
		if adopted, err = k.settle(ctx, k.Current(), candidate, token); err != nil {
			k.discard(ctx, candidate.client)
			return err
		}
	}
	k.metrics.reloads.WithLabelValues("adopted").Inc()
	k.log.Info("configuration adopted", candidate.fields()...)
	if address := cfg.Vault.InTheClear(); address != "" {
		k.log.Warn("the token travels in the clear: vault's address is not https", zap.String("vault", address))
	}
	return nil
}

// pause is how long to wait between attempts to adopt something.
type pause struct{ short, long *backoff.ExponentialBackOff }

func newPause() pause {
	return pause{
		short: newBackoff(500*time.Millisecond, 5*time.Second),
		long:  newBackoff(3*time.Minute, 15*time.Minute),
	}
}

func (p pause) after(err error) time.Duration {
	var e *loadError
	if errors.As(err, &e) && e.patient {
		return p.long.NextBackOff()
	}
	return p.short.NextBackOff()
}

func (p pause) reset() {
	p.short.Reset()
	p.long.Reset()
}

func newBackoff(first, longest time.Duration) *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval = first
	b.MaxInterval = longest
	return b
}
