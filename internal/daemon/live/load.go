// SPDX-License-Identifier: Apache-2.0

package live

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/trousseau-io/trousseau/internal/config"
	"github.com/trousseau-io/trousseau/internal/daemon/watch"
	"github.com/trousseau-io/trousseau/internal/fault"
)

// reloadState is how the configuration on disk fares.
type reloadState struct {
	// adopted is when configuration was last adopted.
	adopted time.Time
	// refused is the class of the failure that keeps the configuration on disk
	// from being used; "" if it is in use.
	refused string
}

// Why a candidate was refused, in addition to the classes of package fault. All
// are metric labels.
const (
	classConfig = "config"        // the bytes are not a valid configuration
	classLogin  = "login_denied"  // Vault refuses the credential
	classToken  = "refused_token" // the token would not last
	// Adopting it would orphan data: it has another transit engine, does not list
	// the active key, has other associated data, or holds another key.
	classRefusedEngine  = "refused_engine"
	classRefusedKey     = "refused_key"
	classRefusedBinding = "refused_associated_data"
	classRefusedVault   = "refused_vault"
)

// reloadError is why a candidate was refused.
type reloadError struct {
	class string
	err   error
	// patient means that another attempt soon does harm, final that only other
	// bytes can help.
	patient, final bool
}

func (e *reloadError) Error() string { return e.err.Error() }
func (e *reloadError) Unwrap() error { return e.err }

func refusef(class, format string, args ...any) error {
	return &reloadError{class: class, err: fmt.Errorf(format, args...)}
}

func finalf(class, format string, args ...any) error {
	return &reloadError{class: class, err: fmt.Errorf(format, args...), final: true}
}

func classOf(err error) string {
	var e *reloadError
	if errors.As(err, &e) {
		return e.class
	}
	return string(fault.ClassOf(err))
}

// load makes each content the current generation until ctx is done. The first
// load and every reload take this path.
func (k *KEK) load(ctx context.Context) {
	var (
		content watch.Content[*config.Config]
		logged  string           // the failure last logged, with its content
		retry   <-chan time.Time // nil when only new content can help
	)
	pause := newPause(k)
	for {
		select {
		case <-ctx.Done():
			return
		case content = <-k.opts.Contents:
			pause.reset()
		case <-k.hurry:
			if retry == nil {
				continue
			}
		case <-k.wanted:
			if retry != nil && pause.shorten() {
				retry = time.After(time.Until(pause.until))
			}
			continue
		case <-retry:
			if !pause.over(ctx, content.Value) {
				retry = time.After(time.Until(pause.look()))
				continue
			}
		}
		retry = nil
		err := k.loadOnce(ctx, content)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			logged = ""
			continue
		}
		class := classOf(err)
		k.metrics.reloads.WithLabelValues(class).Inc()
		k.update(func(v *view) {
			v.reload.refused = class
			if v.gen == nil {
				v.health.trouble = err
			}
		})
		fields := []zap.Field{zap.String("class", class), zap.Error(err)}
		var e *reloadError
		if !errors.As(err, &e) || !e.final {
			pause.begin(ctx, content.Value, err)
			retry = time.After(time.Until(pause.look()))
			fields = append(fields, zap.Time("next_attempt", pause.until))
		}
		if failure := content.Digest + err.Error(); failure != logged {
			logged = failure
			message := "no usable configuration yet; requests are refused"
			if k.Current() != nil {
				message = "configuration refused; the previous one keeps serving"
			}
			k.log.Warn(message, fields...)
		}
	}
}

// loadOnce makes a candidate from content and adopts it.
func (k *KEK) loadOnce(ctx context.Context, content watch.Content[*config.Config]) error {
	if active := k.Current(); active != nil && active.Digest == content.Digest {
		k.update(func(v *view) { v.reload.refused = "" })
		k.log.Info("configuration is the one in use again", zap.Uint64("generation", active.Number))
		return nil
	}
	var mistakes *config.Error
	switch {
	case errors.As(content.Err, &mistakes):
		return finalf(classConfig, "reading %s: %w", content.Path, content.Err)
	case content.Err != nil:
		return finalf(classConfig, "reading the configuration: %w", content.Err)
	}
	cfg, active := content.Value, k.Current()
	candidate, token, err := k.newCandidate(ctx, cfg, content.Digest, active)
	if err != nil {
		return err
	}
	if err := k.adoptChecked(ctx, active, candidate, token); err != nil {
		k.closeAfter(ctx, 0, candidate.cluster)
		return err
	}
	k.metrics.reloads.WithLabelValues("adopted").Inc()
	k.log.Info("configuration adopted", candidate.fields()...)
	if address := cfg.Vault.InTheClear(); address != "" {
		k.log.Warn("vault address is not https; the token is sent unencrypted", zap.String("vault", address))
	}
	k.warnIfCreating(ctx, candidate)
	return nil
}

// warnIfCreating warns if a mistyped key name would create a key.
func (k *KEK) warnIfCreating(ctx context.Context, gen *Generation) {
	bounded, cancel := context.WithTimeout(ctx, k.opts.RequestTimeout)
	defer cancel()
	if may, err := gen.cluster.serving.Load().MayCreate(bounded, gen.ID.Key); err == nil && may {
		k.log.Warn("Vault token may create keys; a mistyped key name would create one", zap.String("path", gen.ID.Engine+"/encrypt/"+gen.ID.Key))
	}
}
