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
	// patient means that another attempt soon does harm.
	patient bool
}

func (e *reloadError) Error() string { return e.err.Error() }
func (e *reloadError) Unwrap() error { return e.err }

func refusef(class, format string, args ...any) error {
	return &reloadError{class: class, err: fmt.Errorf(format, args...)}
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
		if failure := content.Digest + err.Error(); failure != logged {
			logged = failure
			message := "no usable configuration yet; requests are refused"
			if k.Current() != nil {
				message = "configuration refused; the previous one keeps serving"
			}
			k.log.Warn(message, zap.String("class", class), zap.Error(err))
		}
		// Wrong bytes stay wrong; every other failure may pass.
		if class != classConfig {
			retry = time.After(pause.after(err))
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
		return refusef(classConfig, "reading %s: %w", content.Path, content.Err)
	case content.Err != nil:
		return refusef(classConfig, "reading the configuration: %w", content.Err)
	}
	cfg := content.Value
	candidate, token, err := k.newCandidate(ctx, cfg, content.Digest)
	if err != nil {
		return err
	}
	// If the prober adopts another generation meanwhile, the candidate is checked
	// against that one.
	for adopted := false; !adopted; {
		if adopted, err = k.adoptChecked(ctx, k.Current(), candidate, token); err != nil {
			k.closeAfter(ctx, 0, candidate.client)
			return err
		}
	}
	k.metrics.reloads.WithLabelValues("adopted").Inc()
	k.log.Info("configuration adopted", candidate.fields()...)
	if address := cfg.Vault.InTheClear(); address != "" {
		k.log.Warn("vault address is not https; the token is sent unencrypted", zap.String("vault", address))
	}
	return nil
}
