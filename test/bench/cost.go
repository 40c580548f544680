// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/trousseau-io/trousseau/test/harness/pages"
	"github.com/trousseau-io/trousseau/test/harness/usage"
)

// meter reads what processes have consumed since they started.
type meter struct {
	vault int // pid
}

// consumption is what the calls cost, in total or per call.
type consumption struct {
	mallocs, bytes float64 // of the side's own process
	cpu            time.Duration
	vaultCPU       time.Duration
}

// cost is the consumption per call of one contender.
type cost struct {
	name, method string
	consumption
}

type costs []cost

// costs measures what each contender consumes. For direct calls this is this process;
// for a plugin it is the daemon without its caller. What another program has started
// is left out.
func (m *meter) costs(ctx context.Context, contenders []*contender) (costs, error) {
	const within = time.Second
	var all costs
	for _, c := range contenders {
		if c.process == nil && c.name != directly {
			continue
		}
		for _, method := range append(slices.Clone(methods), "Status") {
			if method == "Status" && c.status == nil {
				continue
			}
			before, err := m.read(ctx, c.process)
			if err != nil {
				return nil, err
			}
			// Reading costs something too, so measure it as well.
			zero, err := m.read(ctx, c.process)
			if err != nil {
				return nil, err
			}
			sample, err := drive(ctx, crowd, within, c.call(method))
			if err != nil {
				return nil, err
			}
			after, err := m.read(ctx, c.process)
			if err != nil {
				return nil, err
			}
			n := float64(max(1, sample.calls))
			all = append(all, cost{c.name, method, consumption{
				mallocs:  (after.mallocs - zero.mallocs - (zero.mallocs - before.mallocs)) / n,
				bytes:    (after.bytes - zero.bytes - (zero.bytes - before.bytes)) / n,
				cpu:      time.Duration(float64(after.cpu-zero.cpu) / n),
				vaultCPU: time.Duration(float64(after.vaultCPU-zero.vaultCPU) / n),
			}})
		}
	}
	return all, nil
}

// read returns what Vault and a daemon have consumed, or this process if there is none.
func (m *meter) read(ctx context.Context, p *trousseau) (c consumption, err error) {
	if c.vaultCPU, err = usage.CPU(m.vault); err != nil {
		return c, err
	}
	if p == nil {
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		c.mallocs, c.bytes = float64(s.Mallocs), float64(s.TotalAlloc)
		c.cpu, err = usage.CPU(os.Getpid())
		return c, err
	}
	if c.mallocs, err = sum(ctx, p.pages, "go_memstats_mallocs_total"); err != nil {
		return c, err
	}
	if c.bytes, err = sum(ctx, p.pages, "go_memstats_alloc_bytes_total"); err != nil {
		return c, err
	}
	c.cpu, err = usage.CPU(p.cmd.Process.Pid)
	return c, err
}

// sum adds up the samples of a daemon metric that have the labels.
func sum(ctx context.Context, from *pages.Client, name string, labels ...string) (float64, error) {
	page, err := from.Metrics(ctx)
	if err != nil {
		return 0, err
	}
	sum, found, err := page.Sum(name, labels...)
	if err == nil && !found {
		err = fmt.Errorf("/metrics has no %s", name)
	}
	return sum, err
}

func (c costs) print(w io.Writer) {
	fmt.Fprintf(w, "\n%-30s %12s %9s %10s %12s\n", fmt.Sprintf("cost of one call, %d callers", crowd), "allocations", "KiB", "CPU", "Vault's CPU")
	for _, x := range c {
		fmt.Fprintf(w, "%-9s%-21s %12.0f %9.1f %10s %12s\n", x.method, x.name, x.mallocs, x.bytes/1024,
			x.cpu.Round(time.Microsecond), x.vaultCPU.Round(time.Microsecond))
	}
}
