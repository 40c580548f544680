// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

// writers is the number of callers that encrypt beside a storm.
const writers = 4

// mix measures Encrypts beside callers that decrypt, in turns.
func mix(ctx context.Context, contenders []*contender) (map[string][]sample, error) {
	const rounds, turn = 5, time.Second
	all := make(map[string][]sample)
	for round := range rounds + 1 {
		for _, c := range contenders {
			s, err := c.write(ctx, turn)
			if err != nil {
				return nil, err
			}
			if round > 0 {
				all[c.name] = append(all[c.name], s)
			}
		}
	}
	return all, nil
}

// write measures the writers beside a crowd of readers.
func (c *contender) write(ctx context.Context, within time.Duration) (written sample, err error) {
	all, ctx := errgroup.WithContext(ctx)
	drive := func(into *sample, callers int, method string) {
		all.Go(func() (err error) {
			*into, err = drive(ctx, callers, within, c.call(method))
			return err
		})
	}
	var read sample
	drive(&read, crowd, "Decrypt")
	drive(&written, writers, "Encrypt")
	if err := all.Wait(); err != nil {
		return written, err
	}
	for _, s := range []sample{read, written} {
		if s.failed > 0 {
			report(c.name+", Encrypts beside Decrypts", "%d failed: %v", s.failed, s.failure)
		}
	}
	return written, nil
}

// longestWait returns how long an Encrypt waited at most for its own call to begin,
// beside a storm, in units of the time that Vault takes for a batch. The Vault is a
// fake that takes so long for every call that all other times are small. It is the
// median of some runs, because a machine that stalls once makes all wait.
func longestWait(ctx context.Context, binary string) (float64, error) {
	const runs, batch = 5, 50 * time.Millisecond
	v, fake, err := newFake(false)
	if err != nil {
		return 0, err
	}
	defer v.close()
	p, err := launchReady(ctx, binary, v)
	if err != nil {
		return 0, err
	}
	defer p.close()
	c := ofPlugin(through, p.client, p)
	if err := c.prepare(ctx); err != nil {
		return 0, err
	}
	release := fake.Inject(vaulttest.Fault{Delay: batch, Match: vaulttest.Ops(vaulttest.OpEncrypt, vaulttest.OpDecrypt)})
	defer release()
	var waits []float64
	for range runs {
		s, err := c.write(ctx, 40*batch)
		if err != nil {
			return 0, err
		}
		if s.calls == 0 {
			return 0, errors.New("no Encrypt beside the storm succeeded")
		}
		waits = append(waits, float64(s.longest)/float64(batch)-1)
	}
	return median(waits), nil
}

func (r *run) printMixed(w io.Writer) {
	fmt.Fprintf(w, "\nEncrypt with %d callers, beside %d callers that decrypt\n", writers, crowd)
	for _, name := range r.names {
		s := r.mixed[name]
		fmt.Fprintf(w, "  %-16s p50 %8s  p99 %8s  longest %8s\n", name,
			p50.shown(p50.middle(s)), p99.shown(p99.middle(s)), longest.shown(longest.middle(s)))
	}
	fmt.Fprintf(w, "  if every call of Vault takes the same time, an Encrypt through trousseau waits for %.2f of them at most\n", r.waited)
}
