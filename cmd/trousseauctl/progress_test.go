// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"io"
	"strings"
	"testing"
)

// TestProgress checks that long operations show a progress bar with the remaining
// time on a terminal, and remove it at the end.
func TestProgress(t *testing.T) {
	screen, terminal := openTerminal(t)
	shown := make(chan string, 1)
	go func() {
		text, _ := io.ReadAll(screen) // returns an error when the other end is closed
		shown <- string(text)
	}()
	p := newProgress(terminal)
	p.tell("rewriting secrets", 10, 100)
	p.tell("rewriting configmaps", 3, 4)
	p.end()
	if err := terminal.Close(); err != nil {
		t.Fatal(err)
	}
	text := <-shown
	for _, want := range []string{"rewriting secrets  10%", "rewriting configmaps  75%", "s]"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in %q", want, text)
		}
	}
	if last := text[strings.LastIndex(text, "\r"):]; strings.TrimSpace(last) != "" {
		t.Errorf("%q is left", last)
	}
}

func TestProgressElsewhere(t *testing.T) {
	var b bytes.Buffer
	p := newProgress(&b)
	p.tell("rewriting secrets", 10, 100)
	p.end()
	if b.Len() > 0 {
		t.Errorf("wrote %q without a terminal", &b)
	}
}
