// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// history records the steps so far. It is safe for concurrent use.
type history struct {
	mu    sync.Mutex
	lines []line
}

// line is one step with its times since the start of the soak.
type line struct {
	step
	alone    bool          // no request may fail
	from, to time.Duration // 0 if not begun, or not ended
	skip     error
}

// add adds future steps.
func (h *history) add(steps []step, alone bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range steps {
		h.lines = append(h.lines, line{step: s, alone: alone})
	}
}

func (h *history) change(s step, f func(*line)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f(&h.lines[s.number-1])
}

func (h *history) began(s step, at time.Duration) { h.change(s, func(l *line) { l.from = at }) }
func (h *history) ended(s step, at time.Duration) { h.change(s, func(l *line) { l.to = at }) }
func (h *history) skipped(s step, why error)      { h.change(s, func(l *line) { l.skip = why }) }

// last returns the number of the last step, 0 if there is none.
func (h *history) last() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.lines)
}

// print prints all steps.
func (h *history) print(w io.Writer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, l := range h.lines {
		when := "not begun"
		switch {
		case l.skip != nil:
			when = "skipped"
		case l.to != 0:
			when = fmt.Sprintf("%s to %s", clock(l.from), clock(l.to))
		case l.from != 0:
			when = fmt.Sprintf("%s, in progress", clock(l.from))
		}
		fmt.Fprintf(w, "%5d  %-22s for %6.1f s  %s\n", l.number, when, l.lasts.Seconds(), l.fault.name)
	}
}

// counts returns how often each fault occurred, occurred alone and was skipped, and
// why it was skipped.
func (h *history) counts() map[string]*count {
	h.mu.Lock()
	defer h.mu.Unlock()
	counts := map[string]*count{}
	for _, l := range h.lines {
		c := counts[l.fault.name]
		if c == nil {
			c = &count{}
			counts[l.fault.name] = c
		}
		switch {
		case l.skip != nil:
			c.skipped, c.why = c.skipped+1, l.skip
		case l.alone:
			c.alone++
			fallthrough
		default:
			c.all++
		}
	}
	return counts
}

type count struct {
	all, alone, skipped int
	why                 error
}

// clock formats a duration as minutes and seconds.
func clock(d time.Duration) string {
	return fmt.Sprintf("%3d:%04.1f", int(d.Minutes()), (d % time.Minute).Seconds())
}
