// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// Each row is one direct call a second, and a failure of Status after some of them.
func TestStatusIsHeldToDirectCalls(t *testing.T) {
	var (
		failure = errors.New("down")
		good    = direct{process: 1, access: access{token: "a"}, intact: true}
		failed  = with(good, func(d *direct) { d.err = failure })
		gone    = with(good, func(d *direct) { d.process = 0 })
		next    = with(good, func(d *direct) { d.process = 2 })
		damaged = with(good, func(d *direct) { d.intact = false })
		rotated = with(good, func(d *direct) { d.access.token = "b" })
		spoiled = with(rotated, func(d *direct) { d.intact = false })
	)
	type calls struct {
		n    int
		call direct
	}
	for _, c := range []struct {
		name    string
		calls   []calls
		failsAt int // Status fails between this call and the next; 0 is before all
		want    bool
	}{
		{"long enough", []calls{{30, good}}, 20, true},
		{"at the end of the patience", []calls{{30, good}}, 11, true},
		{"not long enough", []calls{{30, good}}, 10, false},
		{"before the first call", []calls{{30, good}}, 0, false},
		{"the next call fails too", []calls{{20, good}, {1, failed}, {20, good}}, 20, false},
		{"a call failed a moment ago", []calls{{20, good}, {1, failed}, {20, good}}, 25, false},
		{"a call failed long ago", []calls{{20, good}, {1, failed}, {20, good}}, 35, true},
		{"the process has ended", []calls{{20, good}, {1, gone}}, 20, false},
		{"there has been no process for long", []calls{{20, good}, {20, gone}}, 35, false},
		{"the process is new", []calls{{20, good}, {20, next}}, 25, false},
		{"the process is new but had time", []calls{{20, good}, {20, next}}, 35, true},
		{"the token was replaced", []calls{{20, good}, {20, rotated}}, 21, true},
		{"the token is replaced all the time", []calls{{5, good}, {5, rotated}, {5, good}, {5, rotated}}, 18, true},
		{"the file is damaged", []calls{{20, good}, {20, damaged}}, 30, true},
		{"the file is damaged before the process had time", []calls{{5, good}, {40, damaged}}, 30, false},
		{"the file is damaged and the process is new", []calls{{20, good}, {20, with(next, func(d *direct) { d.intact = false })}}, 35, false},
		{"the token was replaced, then the file damaged", []calls{{20, good}, {5, rotated}, {20, spoiled}}, 40, false},
		{"the token was replaced, the file damaged much later", []calls{{20, good}, {15, rotated}, {20, spoiled}}, 50, true},
		{"the damage is over for a while", []calls{{20, good}, {1, rotated}, {20, spoiled}, {20, rotated}}, 55, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var (
					e      evidence
					got    error
					number int
				)
				between := func() {
					time.Sleep(directPace / 2)
					if number == c.failsAt {
						e.statusFailed(time.Now(), failure)
					}
					time.Sleep(directPace / 2)
				}
				between()
				for _, calls := range c.calls {
					for range calls.n {
						call := calls.call
						call.began, call.ended = time.Now(), time.Now()
						got = errors.Join(got, e.add(call))
						number++
						between()
					}
				}
				if (got != nil) != c.want {
					t.Errorf("got violation %v, want one: %t", got, c.want)
				}
			})
		})
	}
}

func with(d direct, change func(*direct)) direct {
	change(&d)
	return d
}

// A fault may have begun after a direct call and before Status failed. So only a
// direct call that begins later is proof.
func TestACallBeforeTheFailureProvesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var e evidence
		call := func(began time.Time) error {
			return e.add(direct{process: 1, intact: true, began: began, ended: time.Now()})
		}
		for range 20 {
			if err := call(time.Now()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(directPace)
		}
		began := time.Now()
		time.Sleep(directPace)
		e.statusFailed(time.Now(), errors.New("down"))
		if err := call(began); err != nil {
			t.Errorf("after a call that began before the failure: %v", err)
		}
		time.Sleep(directPace)
		if err := call(time.Now()); err == nil {
			t.Error("after a call that began later: got no violation")
		}
		made, ok, owed := e.counts()
		if made != 22 || ok != 22 || owed < 10*time.Second || owed > 12*time.Second {
			t.Errorf("counted %d calls, %d successes and %s, want 22, 22 and about 11s", made, ok, owed)
		}
	})
}
