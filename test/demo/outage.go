// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/trousseau-io/trousseau/test/harness/plugin"
)

// stopVault stops Vault for longer than the grace and starts it again. It prints
// a line whenever trousseau's answers change.
func (d *demo) stopVault(ctx context.Context) error {
	d.load.stop()
	d.reportLoad(d.load)
	d.load = nil
	d.fact("grace", "%s here (default 5m), counted from the last proof that the key works", outageGrace)
	o := outage{demo: d, began: time.Now()}
	d.vault.Stop()
	o.line("Vault", "stops")
	if err := o.until(ctx, outageGrace+5*time.Second, "Status to stop being ok", func() bool { return !o.healthy }); err != nil {
		return err
	}
	degraded, expired, now := o.degradedAt, o.since(), time.Now()
	// Read after Vault has stopped: another proof could have come in between.
	proven, err := d.plugin.Metric(ctx, "trousseau_last_proof_timestamp_seconds")
	if err != nil {
		return err
	}
	unproven := now.Sub(time.UnixMilli(int64(proven * 1000)))
	if err := d.vault.Start(); err != nil {
		return err
	}
	restarted := o.since()
	o.line("Vault", "starts")
	if err := o.until(ctx, 10*time.Second, "Status to be ok again", func() bool { return o.healthy && o.ready }); err != nil {
		return err
	}
	back := o.since() - restarted
	d.fact("meanwhile", "kube-apiserver wrote and read %d Secrets with the seed it holds, %d failed", o.written, o.failed)

	d.found(degraded > 0 && degraded < expired, "Vault stopped: /readyz 503", "after %s", rounded(degraded))
	d.found(unproven > outageGrace && unproven < outageGrace+5*time.Second, "Vault stopped: Status", "ok until %s after the last proof, then %s", rounded(unproven), codes.Unavailable)
	d.found(o.failed == 0, "Vault stopped: failed Secrets", "%d of %d", o.failed, o.written)
	d.found(o.keyID == d.keyID, "Vault back: Status ok", "after %s; key_id %s", rounded(back), o.keyID)
	return nil
}

func (d *demo) reportLoad(total *traffic) {
	kms, secrets, failed := total.kms.Count(), total.secrets.Count(), total.failures()
	d.fact("load stops", "without Vault no KMS call can succeed; in all %d calls and %d Secrets, %d failed", kms.Operations, secrets.Operations, failed)
	if first := cmp.Or(kms.First, secrets.First); first != nil {
		d.fact("first failure", "%s", d.said(first))
	}
	d.found(failed == 0, "failures under load", "%d in %d KMS calls and %d Secrets", failed, kms.Operations, secrets.Operations)
}

// outage observes trousseau and kube-apiserver while Vault is away.
type outage struct {
	*demo
	began time.Time

	healthy, ready bool // as last seen; both true before
	seen           bool // whether anything has been observed yet
	keyID          string
	degradedAt     time.Duration // when /readyz first answered 503
	written        int
	failed         int
}

func (o *outage) since() time.Duration { return time.Since(o.began) }

func (o *outage) line(who, format string, args ...any) {
	o.fact(fmt.Sprintf("%6.2f s", o.since().Seconds()), "%-8s %s", who, strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", "\n         "))
}

// until observes everything repeatedly, until done returns true.
func (o *outage) until(ctx context.Context, within time.Duration, what string, done func() bool) error {
	return plugin.Await(ctx, within, what, func(ctx context.Context) (bool, error) {
		if err := o.look(ctx); err != nil {
			return false, err
		}
		return done(), nil
	})
}

func (o *outage) look(ctx context.Context) error {
	ready, page, err := o.plugin.Ready(ctx)
	if err != nil {
		return err
	}
	if ready != o.ready || !o.seen {
		answer := "200"
		if !ready {
			answer = "503"
			o.degradedAt = o.since()
		}
		var checks []string
		for check := range strings.Lines(page) {
			checks = append(checks, wrap(check))
		}
		o.line("/readyz", "%s\n%s", answer, strings.Join(checks, "\n"))
	}
	keyID, err := o.status(ctx)
	if code := status.Code(err); code != codes.OK && code != codes.Unavailable {
		return err
	}
	if healthy := err == nil; healthy != o.healthy || ready != o.ready || !o.seen {
		o.line("Status", "%s", o.said(err))
		o.healthy = healthy
	}
	o.ready, o.seen, o.keyID = ready, true, keyID

	o.written++
	if err := writeAndRead(ctx, o.api); err != nil {
		o.failed++
	}
	return nil
}
