// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

const (
	shortestFault = 100 * time.Millisecond
	longestFault  = 20 * time.Second
	// atOnce is how many faults of a storm may be there at the same time.
	atOnce = 3
	// longestStorm is the greatest number of faults in one.
	longestStorm = 10
	// longestGap is the longest time between the beginnings of two.
	longestGap = 3 * time.Second
	// era is how many storms leave trousseau's process alone, so that a leak has
	// time to show, before as many do not.
	era = 3
)

// step is one fault of a walk: when it begins and how long it lasts.
type step struct {
	number int // from 1
	fault  *fault
	at     time.Duration // from the beginning of its storm
	lasts  time.Duration
	seed   uint64 // of whatever else it has to draw
}

func (s step) until() time.Duration { return s.at + s.lasts }

// plan draws the steps of a walk. They follow from the seed alone, never from
// what happens meanwhile or from how long it takes.
type plan struct {
	random *rand.Rand
	steps  int
	storms int
}

func newPlan(seed uint64) *plan {
	return &plan{random: rand.New(rand.NewPCG(seed, 0))}
}

// storm draws the next steps, of which some overlap.
func (p *plan) storm() []step {
	p.storms++
	var storm []step
	at := time.Duration(0)
	for range 1 + p.random.IntN(longestStorm) {
		s := p.step(func(*fault) bool { return true })
		at += p.upTo(longestGap)
		s.at = at
		for !fits(storm, s) {
			s.at = firstEnd(storm, s.at)
		}
		at = s.at
		storm = append(storm, s)
	}
	return storm
}

// fits reports whether s can come beside what is there when it begins.
func fits(storm []step, s step) bool {
	there := 0
	for _, other := range storm {
		if other.until() <= s.at {
			continue
		}
		there++
		if other.fault.touches == s.fault.touches {
			return false
		}
	}
	return there < atOnce
}

// firstEnd is when the first of the steps that are there at a time ends.
func firstEnd(storm []step, at time.Duration) time.Duration {
	first := time.Duration(math.MaxInt64)
	for _, s := range storm {
		if s.until() > at {
			first = min(first, s.until())
		}
	}
	return first
}

// alone draws a step that must not make any request fail. Every other one is a
// rotation of the token, because that is what happens every day.
func (p *plan) alone() step {
	rotation := p.random.IntN(2) == 0
	return p.step(func(f *fault) bool { return f.harmless && rotation == (f.touches == onToken) })
}

// calm draws how long a calm lasts.
func (p *plan) calm() time.Duration { return time.Second + p.upTo(3*time.Second) }

// step draws one of these faults and gives it a time that is as likely to be
// around one second as around ten.
func (p *plan) step(which func(*fault) bool) step {
	p.steps++
	var among []*fault
	for i := range faults {
		f := &faults[i]
		if which(f) {
			among = append(among, slices.Repeat([]*fault{f}, p.chances(f))...)
		}
	}
	drawn := among[p.random.IntN(len(among))]
	ratio := float64(longestFault) / float64(shortestFault)
	lasts := time.Duration(float64(shortestFault) * math.Pow(ratio, p.random.Float64())).Round(time.Millisecond)
	return step{number: p.steps, fault: drawn, lasts: lasts + drawn.longer, seed: p.random.Uint64()}
}

// chances is how often a fault is in the lot. Those of the process are drawn in
// half of the storms only, so they are there more often then; a long one takes
// the time of several others.
func (p *plan) chances(f *fault) int {
	switch spared := (p.storms-1)/era%2 == 0; {
	case f.touches == onProcess && spared:
		return 0
	case f.touches == onProcess:
		return 8
	case f.longer > 0:
		return 1
	}
	return 2
}

func (p *plan) upTo(d time.Duration) time.Duration {
	return time.Duration(p.random.Int64N(int64(d))).Round(time.Millisecond)
}
