// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	kmsapi "k8s.io/kms/apis/v2"

	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

// status measures Status alone and while Encrypts hang, and counts Vault calls. In
// turns with it, it measures an RPC that does nothing, to show the cost of gRPC on
// this machine.
func status(ctx context.Context, o options) error {
	const hanging, rounds, turn = 64, 20, 100 * time.Millisecond
	v, fake, err := newFake(false)
	if err != nil {
		return err
	}
	defer v.close()
	p, err := launchReady(ctx, o.binary, v, "--probe-interval=1h")
	if err != nil {
		return err
	}
	defer p.close()
	empty, err := startEmpty(ctx)
	if err != nil {
		return err
	}
	defer empty.close()
	burst := func(client kmsapi.KeyManagementServiceClient, within time.Duration) (took []time.Duration, vaultCalls int, err error) {
		before := fake.Total()
		for end := time.Now().Add(within); time.Now().Before(end); {
			began := time.Now()
			if _, err := client.Status(ctx, &kmsapi.StatusRequest{}); err != nil {
				return nil, 0, err
			}
			took = append(took, time.Since(began))
		}
		return took, fake.Total() - before, nil
	}
	show := func(what string, took []time.Duration, vaultCalls int) {
		report(fmt.Sprintf("%s, p50 / p99 of %d", what, len(took)), "%v / %v, %d Vault calls",
			quantile(took, 0.5).Round(time.Microsecond), quantile(took, 0.99).Round(time.Microsecond), vaultCalls)
	}
	var floor, full []time.Duration
	vaultCalls := 0
	for range rounds {
		took, _, err := burst(empty.client, turn)
		if err != nil {
			return err
		}
		floor = append(floor, took...)
		took, n, err := burst(p.client, turn)
		if err != nil {
			return err
		}
		full, vaultCalls = append(full, took...), vaultCalls+n
	}
	show("an RPC that does nothing", floor, 0)
	show("Status, one caller", full, vaultCalls)

	release := fake.Inject(vaulttest.Fault{Hang: true, Match: vaulttest.Ops(vaulttest.OpEncrypt)})
	var all sync.WaitGroup
	for range hanging {
		all.Go(func() { _, _ = p.client.Encrypt(ctx, &kmsapi.EncryptRequest{Plaintext: make([]byte, 32)}) })
	}
	// They share a few calls.
	if err := fake.WaitInFlight(ctx, 1); err != nil {
		return err
	}
	// Shorter than the time after which a hanging attempt is cancelled and retried.
	took, vaultCalls, err := burst(p.client, 1200*time.Millisecond)
	release()
	all.Wait()
	if err != nil {
		return err
	}
	show(fmt.Sprintf("Status while %d Encrypts hang", hanging), took, vaultCalls)
	return nil
}
