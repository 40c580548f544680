// SPDX-License-Identifier: Apache-2.0

// Command bench measures a trousseau binary from outside, as kube-apiserver and
// the operator meet it: how soon it serves, what memory it takes, how fast
// Status answers, and how soon a new configuration is in use. The figures are
// this machine's and this run's.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"sync"
	"time"

	kmsapi "k8s.io/kms/apis/v2"

	"github.com/trousseau-io/trousseau/internal/vault/vaulttest"
)

func main() {
	binary := flag.String("trousseau", "bin/trousseau", "the binary to measure")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := measure(ctx, *binary); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

func measure(ctx context.Context, binary string) error {
	for _, figure := range []func(context.Context, string) error{start, memory, floor, status, reload} {
		if err := figure(ctx, binary); err != nil {
			return err
		}
	}
	return nil
}

func report(what, format string, args ...any) {
	fmt.Printf("%-62s %s\n", what, fmt.Sprintf(format, args...))
}

// quantile returns the q-quantile of durations, which it sorts.
func quantile(d []time.Duration, q float64) time.Duration {
	slices.Sort(d)
	return d[min(len(d)-1, int(q*float64(len(d))))]
}

// start measures the time from exec to the first answered RPC.
func start(ctx context.Context, binary string) error {
	const runs = 20
	var took []time.Duration
	for range runs {
		p, err := launch(ctx, binary)
		if err != nil {
			return err
		}
		_, _ = p.client.Status(ctx, &kmsapi.StatusRequest{}) // any answer will do
		took = append(took, time.Since(p.began))
		p.close()
	}
	report(fmt.Sprintf("exec to first answered RPC, median of %d", runs), "%v", quantile(took, 0.5).Round(time.Millisecond/10))
	return nil
}

// memory measures the resident set after many requests.
func memory(ctx context.Context, binary string) error {
	const requests, callers = 10_000, 16
	p, err := launchReady(ctx, binary)
	if err != nil {
		return err
	}
	defer p.close()
	var all sync.WaitGroup
	failures := make(chan error, callers)
	for range callers {
		all.Go(func() {
			for range requests / callers / 2 {
				wrapped, err := p.client.Encrypt(ctx, &kmsapi.EncryptRequest{Plaintext: make([]byte, 32)})
				if err == nil {
					_, err = p.client.Decrypt(ctx, &kmsapi.DecryptRequest{Ciphertext: wrapped.GetCiphertext(), KeyId: wrapped.GetKeyId()})
				}
				if err != nil {
					failures <- err
					return
				}
			}
		})
	}
	all.Wait()
	select {
	case err := <-failures:
		return err
	default:
	}
	rss, peak, err := p.memory()
	if err != nil {
		return err
	}
	report(fmt.Sprintf("resident memory after %d requests of %d callers", requests, callers), "%.1f MiB (peak %.1f MiB)", rss, peak)
	return nil
}

// status measures Status alone and while Encrypts hang, and counts Vault calls.
func status(ctx context.Context, binary string) error {
	const calls, hanging = 5_000, 64
	p, err := launchReady(ctx, binary, "--probe-interval=1h")
	if err != nil {
		return err
	}
	defer p.close()
	burst := func(within time.Duration) (took []time.Duration, vaultCalls int, err error) {
		before := p.vault.Total()
		for end := time.Now().Add(within); len(took) < calls && time.Now().Before(end); {
			began := time.Now()
			if _, err := p.client.Status(ctx, &kmsapi.StatusRequest{}); err != nil {
				return nil, 0, err
			}
			took = append(took, time.Since(began))
		}
		return took, p.vault.Total() - before, nil
	}
	took, vaultCalls, err := burst(time.Minute)
	if err != nil {
		return err
	}
	report(fmt.Sprintf("Status, one caller, p50 / p99 of %d", len(took)), "%v / %v, %d Vault calls", quantile(took, 0.5), quantile(took, 0.99), vaultCalls)

	release := p.vault.Inject(vaulttest.Fault{Hang: true, Match: vaulttest.Ops(vaulttest.OpEncrypt)})
	var all sync.WaitGroup
	for range hanging {
		all.Go(func() { _, _ = p.client.Encrypt(ctx, &kmsapi.EncryptRequest{Plaintext: make([]byte, 32)}) })
	}
	if err := p.vault.WaitInFlight(ctx, hanging); err != nil {
		return err
	}
	// Less than a hanging attempt may take before it is cut and made again.
	took, vaultCalls, err = burst(1200 * time.Millisecond)
	release()
	all.Wait()
	if err != nil {
		return err
	}
	report(fmt.Sprintf("Status while %d Encrypts hang, p50 / p99 of %d", hanging, len(took)), "%v / %v, %d Vault calls", quantile(took, 0.5), quantile(took, 0.99), vaultCalls)
	return nil
}

// reload measures the time from the rename of config.yaml to the first Status
// of the new generation, which is told by its key.
func reload(ctx context.Context, binary string) error {
	const runs = 50
	p, err := launchReady(ctx, binary)
	if err != nil {
		return err
	}
	defer p.close()
	var took []time.Duration
	for i := range runs {
		keys := []string{"b", "a"}
		if i%2 == 1 {
			keys = []string{"a", "b"}
		}
		began := time.Now()
		if err := p.configure(keys...); err != nil {
			return err
		}
		if err := p.awaitKey(ctx, keys[0]); err != nil {
			return err
		}
		took = append(took, time.Since(began))
	}
	report(fmt.Sprintf("rename of config.yaml to the new generation, median of %d", runs), "%v (longest %v)",
		quantile(took, 0.5).Round(time.Millisecond/10), quantile(took, 1).Round(time.Millisecond/10))
	return nil
}
