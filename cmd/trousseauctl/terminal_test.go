// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/creack/pty"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/trousseau-io/trousseau/internal/ctl/finding"
	"github.com/trousseau-io/trousseau/internal/ctl/fleet"
)

// tty is a pseudoterminal (pty(7)) and what it shows.
type tty struct {
	t        *testing.T
	*os.File          // of the person
	terminal *os.File // of the program

	mu            sync.Mutex
	columns, rows int
	all           []byte // everything written
	lines         [][]rune
	row, column   int
	alternate     bool
	hidden        bool // the cursor
	scrolled      bool // since the cursor was last at home
}

func openTTY(t *testing.T, columns, rows int) *tty {
	t.Helper()
	screen, terminal, err := pty.Open()
	if err != nil {
		t.Skipf("no pseudoterminals here: %v", err)
	}
	t.Setenv("TERM", "xterm")
	s := &tty{t: t, File: screen, terminal: terminal}
	s.resize(columns, rows)
	read := make(chan struct{})
	go func() {
		defer close(read)
		buf := make([]byte, 4096)
		for {
			n, err := screen.Read(buf)
			if err != nil {
				return // the terminal is closed
			}
			s.mu.Lock()
			s.all = append(s.all, buf[:n]...)
			s.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		terminal.Close()
		screen.Close()
		<-read
	})
	return s
}

// resize changes the size, and forgets what was written.
func (s *tty) resize(columns, rows int) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.columns, s.rows, s.all = columns, rows, nil
	if err := pty.Setsize(s.terminal, &pty.Winsize{Cols: uint16(columns), Rows: uint16(rows)}); err != nil {
		s.t.Fatal(err)
	}
}

var sequence = regexp.MustCompile(`^\x1b\[(\??[0-9;]*)([A-Za-z])`)

// show interprets what was written, as far as trousseauctl uses ECMA-48, and returns
// the lines on the screen.
func (s *tty) show() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines, s.row, s.column, s.scrolled = make([][]rune, s.rows), 0, 0, false
	for rest := s.all; len(rest) > 0; {
		if m := sequence.FindSubmatch(rest); m != nil {
			s.control(string(m[1]) + string(m[2]))
			rest = rest[len(m[0]):]
			continue
		}
		if rest[0] == 0x1b && len(rest) < len("\x1b[?1049h") || !utf8.FullRune(rest) {
			break // the end of it has not arrived yet
		}
		r, size := utf8.DecodeRune(rest)
		rest = rest[size:]
		switch {
		case r == '\r':
			s.column = 0
		case r == '\n':
			s.row++
		default:
			if s.column == s.columns {
				s.row, s.column = s.row+1, 0
			}
			s.row = min(s.row, s.rows-1)
			s.lines[s.row] = append(pad(s.lines[s.row], s.column)[:s.column], r)
			s.column++
		}
		if s.row >= s.rows {
			s.row, s.scrolled = s.rows-1, true
		}
	}
	var text []string
	for _, line := range s.lines {
		text = append(text, strings.TrimRight(string(line), " "))
	}
	return strings.TrimRight(strings.Join(text, "\n"), "\n")
}

func pad(line []rune, n int) []rune {
	for len(line) < n {
		line = append(line, ' ')
	}
	return line
}

func (s *tty) control(c string) {
	switch c {
	case "?1049h", "?1049l":
		s.alternate = c == "?1049h"
		s.lines = make([][]rune, s.rows)
	case "?25l", "?25h":
		s.hidden = c == "?25l"
	case "H":
		s.row, s.column, s.scrolled = 0, 0, false
	case "K":
		s.lines[s.row] = pad(s.lines[s.row], s.column)[:s.column]
	case "J":
		s.lines[s.row] = pad(s.lines[s.row], s.column)[:s.column]
		clear(s.lines[s.row+1:])
	default:
		if !strings.HasSuffix(c, "m") {
			s.t.Errorf("unknown control sequence %q", c)
		}
	}
}

// await waits until the screen fits the pattern and the terminal did not have to
// scroll, and returns what is on the screen.
func (s *tty) await(pattern string) string {
	s.t.Helper()
	want := regexp.MustCompile(pattern)
	text := ""
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if text = s.show(); want.MatchString(text) && !s.scrolled {
			return text
		}
	}
	s.t.Fatalf("%s is not on the screen:\n%s", pattern, text)
	return ""
}

// received waits until the terminal has received a text, and returns everything.
func (s *tty) received(text string) string {
	s.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		s.mu.Lock()
		all := string(s.all)
		s.mu.Unlock()
		if strings.Contains(all, text) {
			return all
		}
	}
	s.t.Fatalf("%q was not received: %q", text, s.all)
	return ""
}

// start runs trousseauctl on the terminal, as its foreground job.
func (s *tty) start(args ...string) *exec.Cmd {
	s.t.Helper()
	cmd := exec.Command("trousseauctl", args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = s.terminal, s.terminal, s.terminal
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = cmd.Process.Kill() })
	return cmd
}

// TestWatchOnATerminal checks that --watch uses the alternate screen, respects its
// size, and restores the terminal when it is stopped.
func TestWatchOnATerminal(t *testing.T) {
	for name, stop := range map[string]func(*tty, *exec.Cmd) error{
		"Ctrl-C":  func(s *tty, _ *exec.Cmd) error { _, err := s.Write([]byte{3}); return err },
		"SIGTERM": func(_ *tty, cmd *exec.Cmd) error { return cmd.Process.Signal(syscall.SIGTERM) },
	} {
		t.Run(name, func(t *testing.T) {
			s := openTTY(t, 100, 24)
			watch := s.start("status", "127.0.0.1:1", "--watch=20ms")
			s.await(`(?m)\A1 node, 1 not healthy, at ..:..:.. UTC\. Stop with Ctrl-C\.\n\nNODE +HEALTH`)
			s.await(`(?m)^127\.0\.0\.1:1 +unreachable\n  connection refused: check`)
			if !s.alternate || !s.hidden {
				t.Errorf("alternate screen %v, hidden cursor %v; want both", s.alternate, s.hidden)
			}
			s.resize(40, 6)
			s.await(`(?m)\A1 node, 1 not healthy, at ..:..:.. UTC\.\nStop with Ctrl-C\.\n\nNODE`)
			if err := stop(s, watch); err != nil {
				t.Fatal(err)
			}
			if err := watch.Wait(); err != nil {
				t.Errorf("ended with %v", err)
			}
			if s.show(); s.alternate || s.hidden {
				t.Errorf("alternate screen %v, hidden cursor %v; want neither", s.alternate, s.hidden)
			}
		})
	}
}

// TestScreenAfterPanic checks that a panic does not leave the terminal unusable.
func TestScreenAfterPanic(t *testing.T) {
	for name, use := range map[string]func(*display) error{
		"while drawing": func(*display) error { panic("broken") },
		"elsewhere": func(d *display) error {
			defer d.closeOnPanic()
			panic("broken")
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := openTTY(t, 80, 24)
			func() {
				defer func() {
					if recover() == nil {
						t.Error("the panic is lost")
					}
				}()
				_ = onScreen(s.terminal, use)
			}()
			s.received(openScreen + closeScreen)
			if s.show(); s.alternate || s.hidden {
				t.Errorf("alternate screen %v, hidden cursor %v; want neither", s.alternate, s.hidden)
			}
		})
	}
}

// TestWatchWithoutRoom checks that nodes that do not fit are counted, that those with
// problems are not among them, and that the header stays.
func TestWatchWithoutRoom(t *testing.T) {
	r := fleet.Report{Time: now}
	for i := range 40 {
		a := fleet.Answer{Node: fmt.Sprintf("10.0.0.%d:8095", i+1), State: state()}
		if i == 39 {
			a = fleet.Answer{Node: a.Node, Unreachable: "connection refused"}
		}
		r.Nodes = append(r.Nodes, a)
	}
	r.KeyIDs = []fleet.KeyID{{Key: state().Key, Nodes: []string{"10.0.0.1:8095"}}}
	r.Findings = []finding.Finding{{ID: "x", Severity: finding.Error, Text: "A problem of all nodes."}}
	s := openTTY(t, 100, 16)
	err := onScreen(s.terminal, func(d *display) error {
		if err := drawStatus(d, r, plainly); err != nil {
			return err
		}
		got := s.await(`A problem of all nodes\.`)
		lines := strings.Split(got, "\n")
		if !strings.HasPrefix(lines[0], "40 nodes, 1 not healthy, at 03:00:00 UTC.") || !strings.HasPrefix(lines[2], "NODE ") || !strings.HasPrefix(lines[3], "10.0.0.40:8095  unreachable") {
			t.Errorf("want the headers and the ill node first:\n%s", got)
		}
		shown := strings.Count(got, "\n10.0.0.")
		if want := fmt.Sprintf("\n… and %d more nodes\n", 40-shown); shown < 3 || !strings.Contains(got, want) {
			t.Errorf("%d nodes are shown, want %q:\n%s", shown, want, got)
		}

		s.resize(40, 4)
		if err := drawStatus(d, r, plainly); err != nil {
			return err
		}
		s.await(`\A40 nodes(.*\n){3}… and \d+ more lines\z`)
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// fits COLUMNS [PATTERN] fails if the terminal received a line of more columns, except
// a single word, or a line that matches the pattern, such as a command to copy.
func cmdFits(ts *testscript.TestScript, neg bool, args []string) {
	columns, err := strconv.Atoi(args[0])
	ts.Check(err)
	except := regexp.MustCompile(strings.Join(append(args[1:], `^\s*\S*$`), "|"))
	text := strings.NewReplacer(eraseLine, "\n", "\r", "").Replace(ts.ReadFile("ttyout"))
	text = sgr.ReplaceAllString(text, "")
	if len(text) < 100 {
		ts.Fatalf("fits: nothing was written: %q", text)
	}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if utf8.RuneCountInString(line) > columns && !except.MatchString(line) {
			ts.Fatalf("fits: more than %d columns: %s", columns, line)
		}
	}
}

var sgr = regexp.MustCompile("\x1b\\[[0-9;]*m")
