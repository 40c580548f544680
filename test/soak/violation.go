// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"sync"
)

// violation is the error for a broken invariant. Any other error means that the soak
// itself could not continue.
type violation struct{ what string }

func (v *violation) Error() string { return v.what }

func violatedf(format string, args ...any) error {
	return &violation{fmt.Sprintf(format, args...)}
}

// peace is the state in which every request must succeed: at most one fault is
// active, which is harmless, and trousseau has recovered from earlier faults. It is
// safe for concurrent use.
type peace struct {
	mu    sync.Mutex
	now   bool
	count int
}

func (p *peace) begin() { p.set(true) }
func (p *peace) end()   { p.set(false) }

func (p *peace) set(now bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now && !p.now {
		p.count++
	}
	p.now = now
}

// number identifies the current peace; it is 0 if there is none. A request that
// begins and ends under the same non-zero number was not disturbed.
func (p *peace) number() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.now {
		return 0
	}
	return p.count
}
