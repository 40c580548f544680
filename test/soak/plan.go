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
	// atOnce is the maximum number of concurrent faults.
	atOnce = 3
	// longestStorm is the maximum number of faults in a storm.
	longestStorm = 10
	// longestGap is the maximum time between the starts of two faults.
	longestGap = 3 * time.Second
	// era is the number of storms that do not restart trousseau, so that a leak has
	// time to show. The same number of storms that may restart it follows.
	era = 3
)

// step is one fault: when it begins and how long it lasts.
type step struct {
	number int // from 1
	fault  *fault
	at     time.Duration // since the start of its storm
	lasts  time.Duration
	seed   uint64 // for the fault's own random choices
}

func (s step) until() time.Duration { return s.at + s.lasts }

// plan draws all steps. They depend only on the seed, not on events or timing.
type plan struct {
	random *rand.Rand
	steps  int
	storms int
}

func newPlan(seed uint64) *plan {
	return &plan{random: rand.New(rand.NewPCG(seed, 0))}
}

// storm draws the steps of the next storm, some of which overlap.
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

// fits reports whether s may overlap with the steps active when it begins.
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

// firstEnd returns when the first of the steps active at a time ends.
func firstEnd(storm []step, at time.Duration) time.Duration {
	first := time.Duration(math.MaxInt64)
	for _, s := range storm {
		if s.until() > at {
			first = min(first, s.until())
		}
	}
	return first
}

// alone draws a step that must not make any request fail. Every second one is a
// token rotation, because that is the most frequent event in production.
func (p *plan) alone() step {
	rotation := p.random.IntN(2) == 0
	return p.step(func(f *fault) bool { return f.harmless && rotation == (f.touches == onToken) })
}

// calm draws the duration of a calm.
func (p *plan) calm() time.Duration { return time.Second + p.upTo(3*time.Second) }

// step draws one of these faults and its duration, which is log-uniform: about one
// second is as likely as about ten.
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

// chances returns a fault's weight. Faults of the process occur in half of the
// storms only, so they weigh more there; a long one takes the time of several
// others.
func (p *plan) chances(f *fault) int {
	switch spared := (p.storms-1)/era%2 == 0; {
	case f.touches == onProcess && spared:
		return 0
	case f.touches == onProcess:
		return 8
	case f.longer > longestFault:
		return 1
	}
	return 2
}

func (p *plan) upTo(d time.Duration) time.Duration {
	return time.Duration(p.random.Int64N(int64(d))).Round(time.Millisecond)
}
