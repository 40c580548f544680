// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/trousseau-io/trousseau/internal/ctl/text"
)

// progress shows one step of long work in the last line of a terminal: how much is
// done, how fast, and how long the rest will take. The line moves every second, even
// if the work says nothing. Its methods are safe for concurrent use.
type progress struct {
	ctx context.Context
	w   io.Writer

	mu          sync.Mutex
	step        string
	done, total int64
	began       time.Time // the step
	samples     []sample  // of the step, not older than window, the oldest first
	drawn       time.Time
	stop        func() // ends the redrawing; nil if the line is not shown
}

// sample is how much was done at a time.
type sample struct {
	at   time.Time
	done int64
}

// window is the time over which the rate is measured.
const window = 15 * time.Second

// newProgress shows progress if w is a terminal. If ctx ends before the work does, end
// says how far it came.
func newProgress(ctx context.Context, w io.Writer) *progress { return &progress{ctx: ctx, w: w} }

// tell says that done of total units of a step are done. A total of 0 means that the
// step has no units.
func (p *progress) tell(step string, done, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if step != p.step {
		p.step, p.began, p.samples, p.drawn = step, now, nil, time.Time{}
	}
	p.done, p.total = done, total
	if n := len(p.samples); n == 0 || now.Sub(p.samples[n-1].at) >= time.Second {
		p.samples = append(p.samples, sample{now, done})
	}
	if _, ok := terminal(p.w); !ok || os.Getenv("TERM") == "dumb" {
		return
	}
	if p.stop == nil {
		ctx, cancel := context.WithCancel(p.ctx)
		ended := make(chan struct{})
		go p.redraw(ctx, ended)
		p.stop = func() { cancel(); <-ended }
	}
	if now.Sub(p.drawn) >= 100*time.Millisecond {
		p.draw(now)
	}
}

// redraw draws the line every second.
func (p *progress) redraw(ctx context.Context, ended chan<- struct{}) {
	defer close(ended)
	again := time.NewTicker(time.Second)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-again.C:
			p.mu.Lock()
			p.draw(now)
			p.mu.Unlock()
		}
	}
}

const eraseLine = "\r\x1b[K" // ECMA-48, Erase in Line

func (p *progress) draw(now time.Time) {
	p.drawn = now
	// The last column stays free: some terminals would begin a new line.
	fmt.Fprint(p.w, eraseLine+p.line(now, cmp.Or(columns(p.w), 80)-1))
}

// end removes the line. If the work was interrupted, it says how much was done.
func (p *progress) end() {
	p.mu.Lock()
	stop := p.stop
	p.stop = nil
	p.mu.Unlock()
	if stop != nil {
		stop()
		fmt.Fprint(p.w, eraseLine)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx.Err() != nil && p.total > 0 {
		fmt.Fprintf(p.w, "interrupted: %s: %s of %s done\n", p.step, text.Number(int(p.done)), text.Number(int(p.total)))
	}
	p.step, p.total = "", 0
}

// line returns the progress in at most width columns. What does not fit is left out,
// the least important first.
func (p *progress) line(now time.Time, width int) string {
	clock := now.Sub(p.began).Truncate(time.Second).String() + " so far"
	if p.total == 0 {
		return shortened(p.step, "  "+clock, width)
	}
	percent := 100 * p.done / p.total
	head := fmt.Sprintf("%s %3d%%", p.step, percent)
	count := fmt.Sprintf("%s of %s", short(p.done), short(p.total))
	for i, tail := range [][]string{{count, p.speed(now), clock}, {p.speed(now), clock}, {clock}} {
		line := head + "  " + strings.Join(slices.DeleteFunc(tail, func(s string) bool { return s == "" }), ", ")
		room := width - utf8.RuneCountInString(line)
		if room < 0 {
			continue
		}
		if bar := min(room, 30) - len("[] "); i == 0 && bar >= 10 {
			full := strings.Repeat("=", bar*int(percent)/100)
			line = fmt.Sprintf("%s  [%-*s] %s", head, bar, full, line[len(head)+2:])
		}
		return line
	}
	return shortened(p.step, fmt.Sprintf(" %3d%%", percent), width)
}

// shortened joins s and end, and cuts s if that is too long.
func shortened(s, end string, width int) string {
	return text.Cut(s, max(1, width-utf8.RuneCountInString(end))) + end
}

// speed returns the rate and how long the rest takes at this rate, or since when
// nothing was done. It is "" in the first second.
func (p *progress) speed(now time.Time) string {
	for len(p.samples) > 1 && now.Sub(p.samples[0].at) > window {
		p.samples = p.samples[1:]
	}
	since := p.samples[0]
	took := now.Sub(since.at)
	if took < time.Second {
		return ""
	}
	rate := float64(p.done-since.done) / took.Seconds()
	if rate <= 0 {
		return "no progress for " + text.Age(took)
	}
	left := time.Duration(float64(p.total-p.done) / rate * float64(time.Second))
	if rate < 10 {
		return fmt.Sprintf("%.1f/s, %s left", rate, text.Age(left))
	}
	return fmt.Sprintf("%s/s, %s left", short(int64(rate)), text.Age(left))
}

// short writes a number in few columns.
func short(n int64) string {
	if n < 1_000_000 {
		return text.Number(int(n))
	}
	return fmt.Sprintf("%.1fM", float64(n)/1e6)
}
