// SPDX-License-Identifier: Apache-2.0

package kms

import (
	"container/list"
	"sync"

	"go.uber.org/zap"
)

const (
	// maxKnown and maxStrangers add up to the limit on connections. A
	// kube-apiserver has one for each provider of its EncryptionConfiguration.
	// The sum leaves room for our own files below 1024, the lowest common limit.
	maxKnown     = 64
	maxStrangers = 512
	// crowded is how many requests may be open before each connection is limited
	// to a share. One request keeps at most 40 KiB here, and about as much may be
	// in transit.
	crowded       = maxStreams + maxStreams/4
	knownShare    = 16
	strangerShare = 1
)

// crowd is the set of connections to a [Server]. Any client may misbehave, and
// kube-apiserver must still be served, on an existing connection and on a new
// one. Three rules ensure that:
//
//   - A connection that sends a complete request becomes known while there is
//     room, and is then not closed to make room for others.
//   - The others are strangers. When there are too many, the one that has sent no
//     complete request for longest is closed; an honest client sends one at once.
//   - When too many requests are open, complete or not, a connection that has its
//     share of them is refused another.
type crowd struct {
	log *zap.Logger

	mu        sync.Mutex
	known     int
	strangers list.List // of *conn, the next to be closed in front
	open      int       // requests
}

// enter adds a new connection.
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
		out.drop("too many connections, and this one has sent no complete request for longest")
	}
}

// forget removes a connection; it is idempotent. cr.mu must be held.
func (cr *crowd) forget(c *conn) {
	if c.place != nil {
		cr.strangers.Remove(c.place)
		c.place = nil
	} else if c.known {
		cr.known--
		c.known = false
	}
}

// recognize records that a complete request has arrived on c.
func (cr *crowd) recognize(c *conn) {
	cr.mu.Lock()
	defer cr.mu.Unlock()
	switch {
	case c.place == nil: // known or closed
	case cr.known < maxKnown:
		cr.forget(c)
		cr.known++
		c.known = true
	default:
		cr.strangers.MoveToBack(c.place)
	}
}

// admit reports whether a request on c is accepted; if so, release must follow.
func (cr *crowd) admit(c *conn) bool {
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

// release records that a request on c is answered or abandoned.
func (cr *crowd) release(c *conn) {
	cr.mu.Lock()
	defer cr.mu.Unlock()
	cr.open--
	c.open--
}
