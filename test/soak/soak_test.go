// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "soak")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestPeaceIsNotTheSameAfterAFault(t *testing.T) {
	var p peace
	if got := p.number(); got != 0 {
		t.Errorf("before the first peace: number %d, want 0", got)
	}
	p.begin()
	first := p.number()
	p.begin()
	if got := p.number(); got != first || got == 0 {
		t.Errorf("during a peace: number changed from %d to %d", first, got)
	}
	p.end()
	if got := p.number(); got != 0 {
		t.Errorf("after the peace: number %d, want 0", got)
	}
	p.begin()
	if got := p.number(); got == first || got == 0 {
		t.Errorf("the next peace has the same number %d", got)
	}
}

func TestPulseKnowsWhatWasLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pulse{pid: func() int { return 0 }, last: time.Now()}
		began := time.Now()
		for range 4 {
			time.Sleep(beat)
			p.look()
		}
		if got := p.lost(began); got != 0 {
			t.Errorf("lost %s with regular measurements, want nothing", got)
		}
		time.Sleep(2 * time.Second)
		if got := p.lost(began); got < time.Second {
			t.Errorf("lost %s, want about 2s since the last measurement", got)
		}
		p.look()
		if got := p.lost(began); got < time.Second {
			t.Errorf("lost %s, want about 2s for a late measurement", got)
		}
		if got := p.lost(time.Now()); got != 0 {
			t.Errorf("lost %s since now, want nothing", got)
		}
	})
}

func TestFootprintMayNotGrow(t *testing.T) {
	before := footprint{goroutines: 30, files: 20, connections: 4, memory: 25}
	for _, c := range []struct {
		name string
		now  footprint
		want bool
	}{
		{"the same", before, true},
		{"connections after a burst", footprint{30, 20, 12, 30}, true},
		{"goroutines", footprint{33, 20, 4, 25}, false},
		{"files", footprint{30, 22, 4, 25}, false},
		{"connections", footprint{30, 20, 40, 25}, false},
		{"memory", footprint{30, 20, 4, 60}, false},
	} {
		if got := c.now.within(before); got != c.want {
			t.Errorf("%s: %s within %s is %t, want %t", c.name, c.now, before, got, c.want)
		}
	}
}

func TestAgentTriesAgain(t *testing.T) {
	dir := filepath.Join(shortDir(t), "later")
	a := newRenderer(dir, "https://127.0.0.1:1")
	a.renderToken("hvs.first")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go a.run(ctx)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		got, err := os.ReadFile(a.path(configName))
		if err == nil && string(got) == a.should(configName) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("config.yaml is %q (%v), want it written once possible", got, err)
		}
	}
}
