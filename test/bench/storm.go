// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"golang.org/x/sync/errgroup"

	kmsapi "k8s.io/kms/apis/v2"
)

// A storm is the load of a starting kube-apiserver in the worst case: many
// concurrent Decrypts of few seeds.
const (
	stormCalls = 2_000
	stormSeeds = 20
	stormRuns  = 7
)

// storms holds the medians of several runs.
type storms struct {
	direct, through time.Duration
	// vaultCalls is the number of Vault calls for one storm through trousseau.
	vaultCalls float64
}

func storm(ctx context.Context, calls *calls, meter *meter) (s storms, err error) {
	var direct, through []time.Duration
	var vaultCalls []float64
	for range stormRuns {
		took, err := rage(ctx, calls, calls.decryptDirectly)
		if err != nil {
			return s, fmt.Errorf("a storm of direct calls: %w", err)
		}
		direct = append(direct, took)
		const name, label, value = "trousseau_vault_requests_total", "operation", "decrypt"
		before, err := meter.sum(ctx, name, label, value)
		if err != nil {
			return s, err
		}
		if took, err = rage(ctx, calls, calls.decrypt); err != nil {
			return s, fmt.Errorf("a storm through trousseau: %w", err)
		}
		through = append(through, took)
		after, err := meter.sum(ctx, name, label, value)
		if err != nil {
			return s, err
		}
		vaultCalls = append(vaultCalls, after-before)
	}
	return storms{median(direct), median(through), median(vaultCalls)}, nil
}

// rage returns how long it takes to answer all calls of a storm.
func rage(ctx context.Context, calls *calls, decrypt func(context.Context, *kmsapi.EncryptResponse) error) (time.Duration, error) {
	all, ctx := errgroup.WithContext(ctx)
	begin := make(chan struct{})
	for i := range stormCalls {
		all.Go(func() error {
			<-begin
			return decrypt(ctx, calls.wrapped[i%stormSeeds])
		})
	}
	began := time.Now()
	close(begin)
	err := all.Wait()
	return time.Since(began), err
}

func (s storms) print(w io.Writer) {
	fmt.Fprintf(w, "\n%-42s direct %v, trousseau %v with %.0f Vault calls; medians of %d\n",
		fmt.Sprintf("%d concurrent Decrypts of %d seeds", stormCalls, stormSeeds),
		s.direct.Round(time.Millisecond), s.through.Round(time.Millisecond), s.vaultCalls, stormRuns)
}
