// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/trousseau-io/trousseau/test/apiserver"
	"github.com/trousseau-io/trousseau/test/harness/agent"
	"github.com/trousseau-io/trousseau/test/harness/load"
	"github.com/trousseau-io/trousseau/test/harness/plugin"
)

const (
	rotations = 5
	// settle is how many more calls must succeed after a change before it counts
	// as survived.
	settle = 200
)

func (d *demo) rotateToken(ctx context.Context) (err error) {
	if d.load, err = startTraffic(d.ctx, d.plugin.Socket(), d.api); err != nil {
		return err
	}
	d.fact("load starts", "%d connections call Encrypt and Decrypt; one kube-apiserver writes and reads Secrets", callers)
	if err := plugin.Await(ctx, 5*time.Second, "load", d.load.reached(load.Count{}, settle)); err != nil {
		return err
	}
	const row = "%17s %11s %8s %8s %8s"
	d.fact("rotation", row, "new token in use", "KMS calls", "denied", "failed", "slowest")
	survived, denied, slowest := 0, 0.0, time.Duration(0)
	for i := range rotations {
		r, err := d.rotateOnce(ctx)
		if err != nil {
			return err
		}
		d.fact(fmt.Sprintf("%8d", i+1), row, "after "+rounded(r.adopted), fmt.Sprint(r.calls), fmt.Sprint(r.denied), fmt.Sprint(r.failed), rounded(r.slowest))
		if r.failed == 0 {
			survived++
		}
		denied += r.denied
		slowest = max(slowest, r.slowest)
	}
	if denied > 0 {
		d.fact("", "trousseau retried the denied calls with the new token")
	}
	d.found(survived == rotations, "token rotations without a failed call", "%d of %d", survived, rotations)
	d.found(slowest < apiserver.Timeout, "slowest call during a rotation", "%s; kube-apiserver allows %s", rounded(slowest), apiserver.Timeout)
	return nil
}

// rotation is what one token rotation did.
type rotation struct {
	adopted time.Duration // from the rename to the generation with the new token
	calls   int           // by the load
	failed  int           // of these
	denied  float64       // requests to Vault
	slowest time.Duration // of the calls
}

// rotateOnce renders a new token and revokes the old one at once.
func (d *demo) rotateOnce(ctx context.Context) (rotation, error) {
	old, next := d.token, d.vault.KMSToken(keyName)
	generation, err := d.generation(ctx)
	if err != nil {
		return rotation{}, err
	}
	deniedBefore, err := d.denied(ctx)
	if err != nil {
		return rotation{}, err
	}
	before, failed := d.load.kms.Mark(), d.load.failures()

	if err := d.render(next); err != nil {
		return rotation{}, err
	}
	landed := time.Now()
	d.vault.Revoke(old)
	if err := plugin.Await(ctx, 5*time.Second, "the new token to be in use", func(ctx context.Context) (bool, error) {
		now, err := d.generation(ctx)
		return now > generation, err
	}); err != nil {
		return rotation{}, err
	}
	adopted := time.Since(landed)
	if err := plugin.Await(ctx, 5*time.Second, "load", d.load.reached(before, settle)); err != nil {
		return rotation{}, err
	}
	denied, err := d.denied(ctx)
	after := d.load.kms.Count()
	return rotation{
		adopted: adopted,
		calls:   after.Operations - before.Operations,
		failed:  d.load.failures() - failed,
		denied:  denied - deniedBefore,
		slowest: after.Longest,
	}, err
}

// denied is the number of trousseau's requests that Vault has denied so far.
func (d *demo) denied(ctx context.Context) (float64, error) {
	return d.plugin.Metric(ctx, "trousseau_vault_requests_total", "code", "denied")
}

// breakConfig writes files that trousseau must refuse, one after the other, and
// then the good one again.
func (d *demo) breakConfig(ctx context.Context) error {
	good := d.config()
	noToken, otherKey, deadToken := good, good, good
	noToken.Token = "<no value>"
	otherKey.KeyNames = []string{"another-key"}
	d.vault.CreateKey("another-key")
	otherKey.Token = d.vault.KMSToken("another-key")
	deadToken.Token = d.vault.KMSToken(keyName)
	d.vault.Revoke(deadToken.Token)
	half := good.String()[:len(good.String())/2]

	generation, err := d.generation(ctx)
	if err != nil {
		return err
	}
	before, failed := d.load.kms.Mark(), d.load.failures()
	broken := []struct{ what, content string }{
		{"half a file", half},
		{"no token", noToken.String()},
		{"revoked token", deadToken.String()},
		{"another key", otherKey.String()},
	}
	for i, b := range broken {
		if err := agent.Render(d.plugin.ConfigFile(), b.content); err != nil {
			return err
		}
		var why []string
		if err := plugin.Await(ctx, 5*time.Second, "the file to be refused", func(context.Context) (bool, error) {
			why, err = d.refusals()
			return len(why) > i, err
		}); err != nil {
			return err
		}
		d.fact(b.what, "refused: %s", d.words(why[i]))
	}
	now, err := d.generation(ctx)
	if err != nil {
		return err
	}
	if err := d.render(good.Token); err != nil {
		return err
	}
	if err := plugin.Await(ctx, 5*time.Second, "the good file to be in use", func(ctx context.Context) (bool, error) {
		ok, err := d.plugin.Metric(ctx, "trousseau_config_last_reload_successful")
		return ok == 1, err
	}); err != nil {
		return err
	}
	calls := d.load.kms.Count().Operations - before.Operations
	failed = d.load.failures() - failed
	d.fact("meanwhile", "%d calls, %d failed; generation %.0f stayed in use", calls, failed, now)
	d.found(now == generation && failed == 0, "calls failed by broken files", "%d of %d; generation %.0f before, %.0f after",
		failed, calls, generation, now)
	return nil
}

// refusals are the reasons in the log for refusing a configuration, in order and
// each once.
func (d *demo) refusals() (reasons []string, err error) {
	log, err := d.plugin.Log()
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(log) {
		var entry struct{ Msg, Error string }
		// The last line may not be complete yet.
		if json.Unmarshal([]byte(line), &entry) == nil && strings.HasPrefix(entry.Msg, "configuration refused") {
			reasons = append(reasons, entry.Error)
		}
	}
	return reasons, nil
}
