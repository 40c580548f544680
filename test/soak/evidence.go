// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"sync"
	"time"

	harness "github.com/trousseau-io/trousseau/test/harness/load"
)

const (
	// directPace is the interval of direct calls.
	directPace = time.Second
	// patience is how long direct calls must have succeeded before a failure of Status
	// is wrong.
	patience = 10 * time.Second
)

// evidence shows that trousseau's Vault can be used: calls without trousseau, with
// the same token through the same network. While they succeed, Status must be ok. It
// is safe for concurrent use.
//
// Only this excuses trousseau, and each for the patience after it:
//   - A direct call failed. Vault, its certificate or the token cannot be used.
//   - The process started, ended or was out of file descriptors. It has to adopt its
//     configuration first, or cannot connect.
//   - The files are damaged, and trousseau may not have adopted what they said before:
//     that was there for less than the patience.
type evidence struct {
	mu       sync.Mutex
	last     direct
	since    time.Time // when the first of the uninterrupted successes ended; zero if there are none
	arrived  time.Time // when last.access was first on disk
	adopted  access    // what the process has adopted for certain
	doubt    *doubt
	made, ok int
	owed     time.Duration // for how long Status had to be ok
}

// direct is one direct call and its circumstances.
type direct struct {
	began, ended time.Time
	process      int // see stage.process; 0 if it has changed during the call
	access       access
	intact       bool // access is still what the files say
	err          error
}

// doubt is a failure of Status that is wrong if the next direct call succeeds too.
type doubt struct {
	at    time.Time
	after time.Duration // of successful direct calls
	err   error
}

// watch makes direct calls until ctx is done.
func (e *evidence) watch(ctx context.Context, s *stage, fail func(error)) {
	var d direct
	harness.Every(ctx, directPace, func() {
		d.process = s.process()
		says, intact := s.agent.onDisk()
		if intact {
			d.access = says
		}
		d.intact = intact
		d.began = time.Now()
		d.err = d.access.roundTrip(ctx)
		d.ended = time.Now()
		if s.process() != d.process {
			d.process = 0
		}
		if ctx.Err() != nil {
			return
		}
		if err := e.add(d); err != nil {
			fail(err)
		}
	})
}

// add records a direct call. It returns a violation if Status failed without excuse
// before it.
func (e *evidence) add(d direct) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	last := e.last
	e.last = d
	e.made++
	if d.err == nil {
		e.ok++
	}
	if d.access != last.access {
		e.arrived = d.began
	}
	if d.process != last.process {
		e.since, e.adopted = time.Time{}, access{}
	}
	if d.err != nil || d.process == 0 || !d.intact && d.access != e.adopted {
		e.since = time.Time{}
		return nil
	}
	if e.since.IsZero() {
		e.since, e.doubt = d.ended, nil
	}
	if d.ended.Sub(e.since) > patience {
		e.owed += d.ended.Sub(last.ended)
		if d.ended.Sub(e.arrived) > patience {
			e.adopted = d.access
		}
	}
	if e.doubt != nil && d.began.After(e.doubt.at) {
		return violatedf("Status failed after %.1f s in which every direct call with the same token succeeded: %v", e.doubt.after.Seconds(), e.doubt.err)
	}
	return nil
}

// statusFailed records that Status, asked at a time, has failed.
func (e *evidence) statusFailed(asked time.Time, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if after := asked.Sub(e.since); e.doubt == nil && !e.since.IsZero() && after > patience {
		e.doubt = &doubt{at: time.Now(), after: after, err: err}
	}
}

// counts returns how many direct calls were made, how many succeeded, and for how
// long Status had to be ok.
func (e *evidence) counts() (made, ok int, owed time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.made, e.ok, e.owed
}
