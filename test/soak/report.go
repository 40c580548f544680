// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// reportTo prints the results; err is the error that ended the soak, if any.
func (s *soak) reportTo(w io.Writer, err error) {
	if err != nil {
		s.reportFailure(w, err)
	}
	fmt.Fprintf(w, "\nsoak: seed %d, %s, %d steps\n", s.seed, time.Since(s.began).Round(time.Second), s.history.last())
	counts := s.history.counts()
	for _, f := range faults {
		c := counts[f.name]
		if c == nil {
			c = &count{}
		}
		note := ""
		switch {
		case c.skipped > 0:
			note = fmt.Sprintf("skipped %d times: %v", c.skipped, c.why)
		case f.touches == onToken && !f.harmless:
			note = "the fake Vault's clock only"
		case f.harmless:
			note = fmt.Sprintf("%d of them alone, where no request may fail", c.alone)
		}
		fmt.Fprintf(w, "%6d  %-50s %s\n", c.all, f.name, note)
	}
	t := s.load.soFar()
	failed := 0
	var codes []string
	for _, code := range slices.Sorted(maps.Keys(t.failed)) {
		failed += t.failed[code]
		codes = append(codes, fmt.Sprintf("%s %d", code, t.failed[code]))
	}
	fmt.Fprintf(w, "requests: %d Encrypt, %d Decrypt, %d Status; %d failed during faults (by code: %s)\n",
		t.requests["Encrypt"], t.requests["Decrypt"], t.requests["Status"], failed-t.starved, strings.Join(codes, ", "))
	fmt.Fprintf(w, "machine: waited up to %.1f s for a CPU; %d requests failed only because of that\n",
		s.pulse.longest.Seconds(), t.starved)
	fmt.Fprintf(w, "ciphertexts: %d, under %d key_ids reported by Status; %d key_ids not checked because their process was gone\n",
		len(s.load.ledger.all()), s.load.ledger.keyIDs(), t.unproven)
	made, ok, owed := s.evidence.counts()
	fmt.Fprintf(w, "direct calls: %d, %d succeeded; for %.0f s in all, Status had to be ok because of them\n", made, ok, owed.Seconds())
	_, starts := s.stage.daemon.pid()
	fmt.Fprintf(w, "processes: %d started\n", starts)
	fmt.Fprintf(w, "longest recovery: %.1f s, after step %d", s.longest.took.Seconds(), s.longest.step)
	if s.longest.why != nil {
		fmt.Fprintf(w, "; last missing: %v", s.longest.why)
	}
	fmt.Fprintln(w)
}

func (s *soak) reportFailure(w io.Writer, err error) {
	if errors.Is(err, errInterrupted) {
		fmt.Fprintf(w, "\nsoak: %v\n", err)
		return
	}
	fmt.Fprintf(w, "\nsoak: FAILED at %s, step %d, seed %d\n%v\n\nsteps:\n", clock(time.Since(s.began)), s.history.last(), s.seed, err)
	s.history.print(w)
	fmt.Fprintf(w, "\ntrousseau's log, with the stacks of its goroutines at the end: %s\n", s.stage.daemon.log.Name())
}
