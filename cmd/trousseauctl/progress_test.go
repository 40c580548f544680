// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"
)

// TestProgress checks that long work shows how far it is, that the line moves every
// second even if the work says nothing, and that it goes away at the end.
func TestProgress(t *testing.T) {
	s := openTTY(t, 80, 24)
	synctest.Test(t, func(t *testing.T) {
		p := newProgress(t.Context(), s.terminal)
		p.tell("starting", 0, 0)
		time.Sleep(1200 * time.Millisecond)
		p.tell("rewriting secrets", 100, 1000)
		time.Sleep(2500 * time.Millisecond)
		p.tell("rewriting secrets", 200, 1000)
		time.Sleep(2 * time.Second)
		p.tell("rewriting configmaps", 3, 4)
		p.end()
		p.end()
	})
	frames := strings.Split(s.received("3 of 4, 0s so far"+eraseLine), eraseLine)
	for i, want := range []string{
		"",
		"starting  0s so far",
		"starting  1s so far",
		"rewriting secrets  10%  [==                         ] 100 of 1,000, 0s so far",
		"rewriting secrets  10%  [==                         ] 100 of 1,000, 0s so far",
		"rewriting secrets  10%  100 of 1,000, no progress for 1s, 1s so far",
		"rewriting secrets  20%  [==           ] 200 of 1,000, 40/s, 20s left, 2s so far",
		"rewriting secrets  20%  [==           ] 200 of 1,000, 35/s, 22s left, 2s so far",
		"rewriting secrets  20%  [==           ] 200 of 1,000, 26/s, 30s left, 3s so far",
		"rewriting configmaps  75%  [====================       ] 3 of 4, 0s so far",
		"",
	} {
		if i >= len(frames) || frames[i] != want {
			t.Errorf("frame %d: want %q in %q", i, want, frames)
		}
	}
}

// TestProgressFits checks that the line fits every terminal.
func TestProgressFits(t *testing.T) {
	began := time.Unix(0, 0)
	p := progress{step: "rewriting widgets.example.com", done: 1_234_567, total: 12_345_678, began: began, samples: []sample{{began, 0}}}
	for width, want := range map[int]string{
		200: "rewriting widgets.example.com   9%  [==                         ] 1.2M of 12.3M, 3,429/s, 54m left, 6m0s so far",
		80:  "rewriting widgets.example.com   9%  3,429/s, 54m left, 6m0s so far",
		60:  "rewriting widgets.example.com   9%  6m0s so far",
		20:  "rewriting widg…   9%",
		3:   "…   9%",
	} {
		if got := p.line(began.Add(6*time.Minute), width); got != want {
			t.Errorf("%d columns: got %q, want %q", width, got, want)
		} else if utf8.RuneCountInString(got) > max(width, 6) {
			t.Errorf("%q is longer than %d", got, width)
		}
	}
}

// TestProgressInterrupted checks that the last count is printed, on a terminal and
// elsewhere, and nothing else is printed elsewhere.
func TestProgressInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var b bytes.Buffer
	p := newProgress(ctx, &b)
	p.tell("rewriting secrets", 10, 1000)
	p.tell("rewriting secrets", 11, 1000)
	p.end()
	if b.Len() > 0 {
		t.Errorf("wrote %q without a terminal", &b)
	}
	p.tell("rewriting secrets", 12, 1000)
	cancel()
	p.end()
	if want := "interrupted: rewriting secrets: 12 of 1,000 done\n"; b.String() != want {
		t.Errorf("got %q, want %q", &b, want)
	}
}
