// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/trousseau-io/trousseau/internal/ctl/fleet"
	"github.com/trousseau-io/trousseau/internal/ctl/text"
)

// watchStatus repeats the survey until ctx is done. On a terminal it redraws the
// screen, elsewhere it prints a line for each change.
func watchStatus(ctx context.Context, w io.Writer, options fleet.Options, interval time.Duration) error {
	survey := func(ctx context.Context) fleet.Report { return fleet.Survey(ctx, options) }
	f, ok := terminal(w)
	if !ok {
		show := &changes{w: w}
		return watch(ctx, interval, nil, survey, show.print)
	}
	paint := painterFor(w)
	return onScreen(f, func(d *display) error {
		fmt.Fprint(f, home+"Asking the nodes.")
		resized := make(chan os.Signal, 1)
		signal.Notify(resized, unix.SIGWINCH)
		defer signal.Stop(resized)
		guarded := func(ctx context.Context) fleet.Report {
			defer d.closeOnPanic()
			return survey(ctx)
		}
		return watch(ctx, interval, resized, guarded, func(r fleet.Report) error { return drawStatus(d, r, paint) })
	})
}

// watch calls look every interval until ctx is done, and shows what it returns, again
// when the terminal was resized.
func watch[T any](ctx context.Context, interval time.Duration, resized <-chan os.Signal, look func(context.Context) T, show func(T) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	seen := make(chan T)
	go func() {
		again := time.NewTicker(interval)
		defer again.Stop()
		for {
			t := look(ctx)
			if ctx.Err() != nil {
				return // t is what was seen until then
			}
			select {
			case <-ctx.Done():
			case seen <- t:
			}
			select {
			case <-ctx.Done():
				return
			case <-again.C:
			}
		}
	}()
	var last *T
	for {
		select {
		case <-ctx.Done():
			return nil
		case t := <-seen:
			last = &t
		case <-resized:
		}
		if last == nil {
			continue
		}
		if err := show(*last); err != nil {
			return err
		}
	}
}

// drawStatus shows as many nodes as there is room for. If that is not all of them,
// those that are not healthy come first.
func drawStatus(d *display, r fleet.Report, paint painter) error {
	ill := 0
	order := slices.Clone(r.Nodes)
	slices.SortStableFunc(order, func(a, b fleet.Answer) int { return rank(a) - rank(b) })
	for _, a := range order {
		ill += 1 - rank(a)
	}
	health := paint(good, "all healthy")
	switch {
	case ill > 0:
		health = paint(bad, fmt.Sprintf("%d not healthy", ill))
	case !r.OK():
		health = paint(bad, "with findings")
	}
	title := fmt.Sprintf("%s, %s, at %s UTC. Stop with Ctrl-C.", text.Count(len(r.Nodes), "node"), health, r.Time.Format(time.TimeOnly))
	return d.draw(len(r.Nodes), func(n int) string {
		shown := order[:n]
		if n == len(order) {
			shown = r.Nodes
		}
		var b strings.Builder
		text.Paragraph(&b, "", title)
		b.WriteString("\n" + statusText(r, shown, paint))
		return b.String()
	})
}

func rank(a fleet.Answer) int {
	if moodOf(a) == good {
		return 1
	}
	return 0
}

// display is the alternate screen of a terminal, as xterm and ECMA-48 define it.
type display struct {
	f     *os.File
	close func()
}

const (
	openScreen  = "\x1b[?1049h\x1b[?25l" // the alternate screen, without a cursor
	closeScreen = "\x1b[?25h\x1b[?1049l"
	home        = "\x1b[H"
	erase       = "\x1b[K" // to the end of the line
	eraseBelow  = "\x1b[J"
)

// onScreen calls use with the alternate screen of f. Afterwards the terminal is as it
// was, even if use panics.
func onScreen(f *os.File, use func(*display) error) error {
	d := &display{f: f, close: sync.OnceFunc(func() { _, _ = f.WriteString(closeScreen) })}
	defer d.close()
	if _, err := f.WriteString(openScreen); err != nil {
		return err
	}
	return use(d)
}

// closeOnPanic is for other goroutines: a panic there ends the process without the
// deferred calls of onScreen.
func (d *display) closeOnPanic() {
	if p := recover(); p != nil {
		d.close()
		panic(p)
	}
}

// draw shows the text that render returns for the first n of all rows, with as many
// rows as there is room for, over the previous text.
func (d *display) draw(all int, render func(n int) string) error {
	width, height, err := term.GetSize(int(d.f.Fd()))
	if err != nil || width == 0 || height == 0 {
		width, height = 80, 24
	}
	fit := func(n int) (lines []string) {
		for line := range strings.SplitSeq(strings.TrimRight(text.Fit(render(n), width), "\n"), "\n") {
			lines = append(lines, broken(line, width)...)
		}
		return lines
	}
	lines := fit(all)
	if len(lines) > height {
		lines = fit(sort.Search(all, func(n int) bool { return len(fit(n+1)) > height }))
	}
	if len(lines) > height {
		lines = append(lines[:height-1], fmt.Sprintf("… and %s", text.Count(len(lines)-height+1, "more line")))
	}
	var b strings.Builder
	b.WriteString(home)
	last := len(lines) - 1
	for _, line := range lines[:last] {
		// Erase first: behind a full line, some terminals would erase its end.
		b.WriteString(erase + line + "\n")
	}
	b.WriteString(eraseBelow + lines[last])
	_, err = d.f.WriteString(b.String())
	return err
}

// broken breaks a line as the terminal would. A line in color is never too long.
func broken(line string, width int) []string {
	if strings.Contains(line, "\x1b") {
		return []string{line}
	}
	var parts []string
	for part := range slices.Chunk([]rune(line), width) {
		parts = append(parts, string(part))
	}
	if parts == nil {
		return []string{""}
	}
	return parts
}
