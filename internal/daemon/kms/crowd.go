// SPDX-License-Identifier: Apache-2.0

package kms

import (
	"container/list"
	"sync"

	"go.uber.org/zap"
)

const (
	// maxKnown and maxStrangers add up to how many connections there are at
	// most. A kube-apiserver has one for each provider of its
	// EncryptionConfiguration. The sum leaves room for files of our own below
	// 1024, the lowest limit in use.
	maxKnown     = 64
	maxStrangers = 512
	// crowded is how many requests may be open before connections are held to a
	// share each. What is here of one is at most 40 KiB, and about as much may
	// be on its way.
	crowded       = maxStreams + maxStreams/4
	knownShare    = 16
	strangerShare = 1
)

// crowd is everyone who is connected to a [Server]. Whoever may connect may
// misbehave, and kube-apiserver has to be served all the same, on the connection
// that it has and on a new one. Three rules see to that:
//
//   - A connection that sends a whole request becomes known while there is room,
//     and is then not closed for anyone else.
//   - The others are strangers. When there are too many, the one goes that has
//     sent no whole request for longest; a caller who wants something sends one
//     within a moment.
//   - When too many requests are open, whole or not, a connection that has its
//     share of them is refused another.
type crowd struct {
	log *zap.Logger

	mu        sync.Mutex
	known     int
	strangers list.List // of *conn, the next to go in front
	open      int       // requests
}

// enter takes in a new connection.
func (cr *crowd) enter(c *conn) {
	cr.mu.Lock()
	c.place = cr.strangers.PushBack(c)
	var out *conn
	if cr.strangers.Len() > maxStrangers {
		out = cr.strangers.Front().Value.(*conn)
		cr.forget(out)
	}
	cr.mu.Unlock()
	if out != nil {
		out.drop("there are too many, and this one has sent no whole request for longest")
	}
}

// leave takes out a connection; a second time it does nothing.
func (cr *crowd) leave(c *conn) {
	cr.mu.Lock()
	defer cr.mu.Unlock()
	cr.forget(c)
}

func (cr *crowd) forget(c *conn) {
	switch {
	case c.place != nil:
		cr.strangers.Remove(c.place)
		c.place = nil
	case c.known:
		cr.known--
		c.known = false
	}
}

// recognize notes that a request of c's has arrived whole.
func (cr *crowd) recognize(c *conn) {
	cr.mu.Lock()
	defer cr.mu.Unlock()
	switch {
	case c.place == nil: // known or gone
	case cr.known < maxKnown:
		cr.forget(c)
		cr.known++
		c.known = true
	default:
		cr.strangers.MoveToBack(c.place)
	}
}

// begin reports whether a request of c's may be waited for and handled; if so,
// end follows.
func (cr *crowd) begin(c *conn) bool {
	cr.mu.Lock()
	defer cr.mu.Unlock()
	share := strangerShare
	if c.known {
		share = knownShare
	}
	if cr.open >= crowded && c.open >= share {
		return false
	}
	cr.open++
	c.open++
	return true
}

// end notes that a request of c's is answered or given up.
func (cr *crowd) end(c *conn) {
	cr.mu.Lock()
	defer cr.mu.Unlock()
	cr.open--
	c.open--
}
