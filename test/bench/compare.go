// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/trousseau-io/trousseau/internal/testkit/loopback"
	"github.com/trousseau-io/trousseau/test/harness/pages"
)

const (
	// mostCallers is the maximum number of callers.
	mostCallers = 128
	// turn is how long one side is measured before the next one.
	turn = 250 * time.Millisecond
)

var levels = []int{1, 16, mostCallers}

// methods are the compared methods. Status has no direct counterpart and is measured
// in between.
var methods = []string{"Encrypt", "Decrypt"}

// results holds the samples of all rounds, by side, method and number of callers.
type results map[string][]sample

func (r results) of(side, method string, callers int) []sample {
	return r[fmt.Sprint(side, method, callers)]
}

func (r results) add(side, method string, callers int, s sample) {
	key := fmt.Sprint(side, method, callers)
	r[key] = append(r[key], s)
}

// The sides.
const (
	directly = "direct"
	through  = "trousseau"
)

// compare measures Encrypt, Decrypt and Status through trousseau, and direct Encrypt
// and Decrypt calls to the same Vault.
func compare(ctx context.Context, o options) error {
	v, err := startVault(ctx)
	if err != nil {
		return err
	}
	defer v.close()
	d, err := newDirect(v)
	if err != nil {
		return err
	}
	defer d.close()
	ops, err := loopback.Reserve("")
	if err != nil {
		return err
	}
	defer ops.Release()
	p, err := launchReady(ctx, o.binary, v, "--ops-addr="+ops.Addr)
	if err != nil {
		return err
	}
	defer p.close()
	calls, err := newCalls(ctx, d, p)
	if err != nil {
		return err
	}
	r, err := takeTurns(ctx, o.rounds, calls)
	if err != nil {
		return err
	}
	rss, peak, err := p.memory()
	if err != nil {
		return err
	}
	meter := &meter{pages: pages.New(ops.Addr), daemon: p.cmd.Process.Pid, vault: v.pid}
	costs, err := meter.costs(ctx, calls)
	if err != nil {
		return err
	}
	storms, err := storm(ctx, calls, meter)
	if err != nil {
		return err
	}
	fmt.Printf("\nDirect calls and trousseau in turns of %v, %d each; %s; %d CPUs, %s\n",
		turn, o.rounds, v.what, runtime.NumCPU(), load())
	r.print(os.Stdout)
	costs.print(os.Stdout)
	storms.print(os.Stdout)
	fmt.Printf("\n%-42s %.1f MiB (peak %.1f MiB)\n", "resident memory after 128 callers", rss, peak)
	judge(os.Stdout, r, storms, peak)
	return nil
}

// takeTurns measures all calls in turns, so that other load on the machine slows all
// alike. Each round reverses the order. The first round opens the connections and
// does not count.
func takeTurns(ctx context.Context, rounds int, calls *calls) (results, error) {
	r := make(results)
	for _, callers := range levels {
		sides := calls.sides()
		for round := range rounds + 1 {
			for _, s := range sides {
				sample, err := drive(ctx, callers, turn, s.call)
				if err != nil {
					return nil, err
				}
				if sample.failed > 0 {
					report(fmt.Sprintf("%s %s, %d callers, round %d", s.method, s.side, callers, round), "%d failed: %v", sample.failed, sample.failure)
				}
				if round > 0 {
					r.add(s.side, s.method, callers, sample)
				}
			}
			slices.Reverse(sides)
		}
	}
	return r, nil
}

// load returns the machine's load average.
func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "load unknown"
	}
	return "load " + strings.Join(strings.Fields(string(text))[:3], " ")
}
