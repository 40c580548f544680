// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"sync"
)

// violation is the error that ends a soak because an invariant did not hold.
// Any other error means that the soak itself could not go on.
type violation struct{ what string }

func (v *violation) Error() string { return v.what }

func violatedf(format string, args ...any) error {
	return &violation{fmt.Sprintf(format, args...)}
}

// peace is whether every request has to succeed right now: no fault is there but
// a harmless one by itself, and trousseau has recovered from those before. It is
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

// number tells one peace from the next; it is 0 while there is none. What begins
// and ends under the same number other than 0 was disturbed by nothing.
func (p *peace) number() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.now {
		return 0
	}
	return p.count
}
