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

	"github.com/trousseau-io/trousseau/test/harness/usage"
)

const (
	// mostCallers is the maximum number of callers.
	mostCallers = 256
	// crowd is the number of callers that targets for high load are about.
	crowd = 128
	// turn is how long one contender is measured before the next one.
	turn = 250 * time.Millisecond
)

var levels = []int{1, 4, 16, 64, crowd, mostCallers}

// methods are the compared methods. Status has no direct counterpart and is measured
// in between.
var methods = []string{"Encrypt", "Decrypt"}

// results holds the samples of all rounds, by contender, method and number of callers.
type results map[string][]sample

func (r results) of(name, method string, callers int) []sample {
	return r[fmt.Sprint(name, method, callers)]
}

func (r results) add(name, method string, callers int, s sample) {
	key := fmt.Sprint(name, method, callers)
	r[key] = append(r[key], s)
}

// run is everything that one comparison has measured.
type run struct {
	names   []string // of the contenders: direct calls, the binary, its peers
	results results
	costs   costs
	storm   storms // of few seeds
	cold    storms // of distinct seeds
	mixed   map[string][]sample
	waited  float64 // longest wait of an Encrypt beside a storm, in batch times
	// Of the plugins that this program has started: after many callers, and at the
	// end, after storms.
	called, stormed map[string]usage.Resident
}

// compare measures Encrypt, Decrypt and Status through trousseau and its peers, and
// direct Encrypt and Decrypt calls to the same Vault.
func compare(ctx context.Context, o options) error {
	v, err := startVault(ctx)
	if err != nil {
		return err
	}
	defer v.close()
	d, err := v.direct(v.token)
	if err != nil {
		return err
	}
	defer d.Close()
	p, err := launchReady(ctx, o.binary, v)
	if err != nil {
		return err
	}
	defer p.close()
	contenders := []*contender{ofDirect(d), ofPlugin(through, p.client, p)}
	for _, peer := range o.peers {
		c, end, err := peer.start(ctx, v)
		if err != nil {
			return err
		}
		defer end()
		contenders = append(contenders, c)
	}
	r := &run{}
	for _, c := range contenders {
		if err := c.prepare(ctx); err != nil {
			return err
		}
		r.names = append(r.names, c.name)
	}
	m := &meter{vault: v.pid}
	if err := r.measure(ctx, o.rounds, contenders, m); err != nil {
		return err
	}
	if r.waited, err = longestWait(ctx, o.binary); err != nil {
		return err
	}
	fmt.Printf("\nTurns of %v, %d each; %s; %d CPUs, %s\n", turn, o.rounds, v.what, runtime.NumCPU(), load())
	r.print(os.Stdout)
	r.judge(os.Stdout)
	if o.svg == "" {
		return nil
	}
	return os.WriteFile(o.svg, r.chart(), 0o600)
}

func (r *run) measure(ctx context.Context, rounds int, contenders []*contender, m *meter) (err error) {
	if r.results, err = takeTurns(ctx, rounds, contenders, m); err != nil {
		return err
	}
	if r.called, err = residents(contenders); err != nil {
		return err
	}
	if r.costs, err = m.costs(ctx, contenders); err != nil {
		return err
	}
	if r.storm, err = storm(ctx, contenders, stormCalls, stormSeeds); err != nil {
		return err
	}
	if r.cold, err = storm(ctx, contenders, coldSeeds, coldSeeds); err != nil {
		return err
	}
	if r.mixed, err = mix(ctx, contenders); err != nil {
		return err
	}
	r.stormed, err = residents(contenders)
	return err
}

func residents(contenders []*contender) (map[string]usage.Resident, error) {
	all := make(map[string]usage.Resident)
	for _, c := range contenders {
		if c.process == nil {
			continue
		}
		var err error
		if all[c.name], err = c.process.memory(); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// takeTurns measures all calls in turns, so that other load on the machine slows all
// alike. Each round reverses the order. The first round opens the connections and
// does not count.
func takeTurns(ctx context.Context, rounds int, contenders []*contender, m *meter) (results, error) {
	type turns struct {
		*contender
		method string
	}
	var order []turns
	for _, method := range methods {
		for _, c := range contenders {
			order = append(order, turns{c, method})
			if method == methods[0] && c.name == through {
				order = append(order, turns{c, "Status"})
			}
		}
	}
	r := make(results)
	for _, callers := range levels {
		for round := range rounds + 1 {
			for _, t := range order {
				began, err := usage.CPU(m.vault)
				if err != nil {
					return nil, err
				}
				sample, err := drive(ctx, callers, turn, t.call(t.method))
				if err != nil {
					return nil, err
				}
				ended, err := usage.CPU(m.vault)
				if err != nil {
					return nil, err
				}
				sample.vaultCPU = (ended - began) / time.Duration(max(1, sample.calls))
				if sample.failed > 0 {
					report(fmt.Sprintf("%s %s, %d callers, round %d", t.method, t.name, callers, round), "%d failed: %v", sample.failed, sample.failure)
				}
				if round > 0 {
					r.add(t.name, t.method, callers, sample)
				}
			}
			slices.Reverse(order)
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
