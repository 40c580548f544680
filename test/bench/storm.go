// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"time"
)

// A storm is the load of a starting kube-apiserver in the worst case: many
// concurrent Decrypts. With few seeds, calls for the same one can be merged. A cold
// start, with distinct seeds, is what many clusters ask of one Vault together.
const (
	stormCalls = 2_000
	stormSeeds = 20
	stormRuns  = 5
	// patience is how long a storm may take.
	patience = time.Minute
)

// storms holds the medians of several runs, by contender.
type storms struct {
	calls, seeds int
	of           map[string]outcome
}

type outcome struct {
	took time.Duration
	// vaultCalls is the number of Vault calls for one storm; NaN if unknown.
	vaultCalls float64
	failed     int // in all runs
}

func storm(ctx context.Context, contenders []*contender, calls, seeds int) (storms, error) {
	s := storms{calls, seeds, make(map[string]outcome)}
	took, vaultCalls, failed := make(map[string][]time.Duration), make(map[string][]float64), make(map[string]int)
	for range stormRuns {
		for _, c := range contenders {
			before, err := c.vaultCalls(ctx)
			if err != nil {
				return s, err
			}
			result := c.rage(ctx, calls, seeds)
			if result.failed > 0 {
				report(fmt.Sprintf("%s, %d concurrent Decrypts of %d seeds", c.name, calls, seeds), "%d failed: %v", result.failed, result.failure)
			}
			failed[c.name] += result.failed
			after, err := c.vaultCalls(ctx)
			if err != nil {
				return s, err
			}
			took[c.name] = append(took[c.name], result.took)
			vaultCalls[c.name] = append(vaultCalls[c.name], after-before)
		}
	}
	for _, c := range contenders {
		s.of[c.name] = outcome{median(took[c.name]), median(vaultCalls[c.name]), failed[c.name]}
	}
	return s, nil
}

// rage makes all calls of a storm. Callers wait as long as it takes: kube-apiserver
// would ask again.
func (c *contender) rage(ctx context.Context, calls, seeds int) once {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return each(ctx, calls, min(calls, c.atOnce), func(ctx context.Context, i int) error {
		return c.decryptSeed(ctx, i%seeds)
	})
}

// vaultCalls returns how many calls to Vault the plugin has made to decrypt; NaN if
// it does not say.
func (c *contender) vaultCalls(ctx context.Context) (float64, error) {
	if c.process == nil {
		return math.NaN(), nil
	}
	return sum(ctx, c.process.pages, "trousseau_vault_requests_total", "operation", "decrypt")
}

// faster returns the time of direct calls divided by that of another contender.
func (s storms) faster(name string) float64 {
	return float64(s.of[directly].took) / float64(s.of[name].took)
}

func (s storms) print(w io.Writer, names []string) {
	fmt.Fprintf(w, "\n%d concurrent Decrypts of %d seeds; medians of %d\n", s.calls, s.seeds, stormRuns)
	for _, name := range names {
		o := s.of[name]
		fmt.Fprintf(w, "  %-16s %8s  %5.2f of direct", name, short(o.took), 1/s.faster(name))
		if !math.IsNaN(o.vaultCalls) {
			fmt.Fprintf(w, "  %6.0f calls to Vault", o.vaultCalls)
		}
		if o.failed > 0 {
			fmt.Fprintf(w, "  %d of %d failed", o.failed, stormRuns*s.calls)
		}
		fmt.Fprintln(w)
	}
}
