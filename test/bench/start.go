// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"time"

	kmsapi "k8s.io/kms/apis/v2"
)

// start measures the time from exec to the first answered RPC.
func start(ctx context.Context, o options) error {
	const runs = 20
	var took []time.Duration
	for range runs {
		p, err := launch(ctx, o.binary)
		if err != nil {
			return err
		}
		_, _ = p.client.Status(ctx, &kmsapi.StatusRequest{}) // any answer will do
		took = append(took, time.Since(p.began))
		p.close()
	}
	report(fmt.Sprintf("exec to first answered RPC, median of %d", runs), "%v", median(took).Round(time.Millisecond/10))
	return nil
}

// reload measures the time from the rename of config.yaml until Status reports the
// key of the new generation.
func reload(ctx context.Context, o options) error {
	const runs = 50
	v, _, err := newFake(false)
	if err != nil {
		return err
	}
	defer v.close()
	p, err := launchReady(ctx, o.binary, v)
	if err != nil {
		return err
	}
	defer p.close()
	var took []time.Duration
	for i := range runs {
		keys := []string{keyB, keyA}
		if i%2 == 1 {
			keys = []string{keyA, keyB}
		}
		began := time.Now()
		if err := p.configure(v, keys...); err != nil {
			return err
		}
		if err := p.awaitKey(ctx, keys[0]); err != nil {
			return err
		}
		took = append(took, time.Since(began))
	}
	report(fmt.Sprintf("rename of config.yaml to the new generation, median of %d", runs), "%v (longest %v)",
		median(took).Round(time.Millisecond/10), quantile(took, 1).Round(time.Millisecond/10))
	return nil
}
