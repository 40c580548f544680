// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"testing"
	"time"
)

// drawn holds the first rounds of a plan.
func drawn(seed uint64, rounds int) (storms [][]step, alone []step) {
	p := newPlan(seed)
	for range rounds {
		p.calm()
		storms = append(storms, p.storm())
		p.calm()
		alone = append(alone, p.alone())
	}
	return storms, alone
}

func TestASeedMakesTheSamePlanAgain(t *testing.T) {
	text := func(seed uint64) string {
		storms, alone := drawn(seed, 20)
		var s string
		for _, steps := range append(storms, alone) {
			for _, st := range steps {
				s += fmt.Sprintln(st.number, st.fault.name, st.at, st.lasts, st.seed)
			}
		}
		return s
	}
	first, second := text(1), text(1)
	if first != second {
		t.Errorf("two plans of seed 1 differ:\n%s\n%s", first, second)
	}
	if first == text(2) {
		t.Error("the plans of seeds 1 and 2 are equal")
	}
}

func TestAPlanKeepsItsBounds(t *testing.T) {
	seen := map[string]bool{}
	for seed := range uint64(50) {
		storms, alone := drawn(seed+1, 20)
		number := 0
		for round, storm := range storms {
			for _, s := range append(storm, alone[round]) {
				seen[s.fault.name] = true
				if number++; s.number != number {
					t.Fatalf("seed %d: step %d comes as number %d", seed+1, s.number, number)
				}
				if s.lasts < shortestFault || s.lasts > longestFault+s.fault.longer {
					t.Errorf("seed %d, step %d, %s: lasts %s", seed+1, s.number, s.fault.name, s.lasts)
				}
				if round < era && s.fault.touches == onProcess {
					t.Errorf("seed %d, step %d: %s in round %d, want no restart in the first %d rounds", seed+1, s.number, s.fault.name, round+1, era)
				}
			}
			if s := alone[round]; !s.fault.harmless || s.at != 0 {
				t.Errorf("seed %d, step %d: %s after %s, want a harmless fault at once", seed+1, s.number, s.fault.name, s.at)
			}
			checkOverlaps(t, seed+1, storm)
		}
	}
	for _, f := range faults {
		if !seen[f.name] {
			t.Errorf("fault missing from 50 plans: %s", f.name)
		}
	}
}

func checkOverlaps(t *testing.T, seed uint64, storm []step) {
	t.Helper()
	var last time.Duration
	for i, s := range storm {
		if s.at < last {
			t.Errorf("seed %d: step %d begins before its predecessor", seed, s.number)
		}
		last = s.at
		there := 1
		for _, before := range storm[:i] {
			if before.until() <= s.at {
				continue
			}
			there++
			if before.fault.touches == s.fault.touches {
				t.Errorf("seed %d: steps %d and %d have the same subject", seed, before.number, s.number)
			}
		}
		if there > atOnce {
			t.Errorf("seed %d: %d concurrent faults at step %d, want at most %d", seed, there, s.number, atOnce)
		}
	}
}
