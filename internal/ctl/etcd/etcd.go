// SPDX-License-Identifier: Apache-2.0

// Package etcd reads what is in etcd: from its servers, or from a snapshot of
// one. It reads each key's newest value, in a stream, and never holds them all;
// what a value means is not its question. It writes nothing.
package etcd

import (
	"bytes"
	"context"
	"errors"
)

// Object is one key with its newest value. Key and Value belong to the reader
// that hands them out, and change once the callback that they were given to has
// returned.
type Object struct {
	Key, Value []byte
	// Revision is the one at which the value was written.
	Revision int64
}

// Reader is a place to read from.
type Reader interface {
	// Read calls each for the objects whose keys begin with one of prefixes:
	// every key once, and no deleted one. An error that each returns ends the
	// reading, and is returned as it is.
	Read(ctx context.Context, prefixes []string, each func(Object) error) (Reading, error)
}

// Reading says what has been read.
type Reading struct {
	// Revision is that of etcd when it was read.
	Revision int64
	// Checksum says whether the file is whole; snapshot only.
	Checksum Checksum
	// Resumptions are where another revision had to be taken, because the one
	// before was compacted meanwhile; live only.
	Resumptions []Resumption
}

// Resumption is that the keys from Key on were read at Revision.
type Resumption struct {
	Revision int64
	Key      string
}

// Progress is told, now and then, how far a step of the work is: done of total,
// in whatever the step counts. The steps are constants of this package.
type Progress func(step string, done, total int64)

// The steps.
const (
	StepChecking = "checking the sha256" // in bytes
	StepReading  = "reading"             // in keys, or for a snapshot in revisions
)

func (p Progress) tell(step string, done, total int64) {
	if p != nil {
		p(step, done, total)
	}
}

// every is how many objects pass between two reports of progress, and between
// two looks at whether the caller is still there.
const every = 1024

func hasAnyPrefix(key []byte, prefixes []string) bool {
	for _, p := range prefixes {
		if len(key) >= len(p) && string(key[:len(p)]) == p {
			return true
		}
	}
	return false
}

func checkPrefixes(prefixes []string) error {
	for i, p := range prefixes {
		if p == "" {
			return errors.New("reading etcd: a prefix is empty")
		}
		for _, other := range prefixes[:i] {
			if bytes.HasPrefix([]byte(p), []byte(other)) || bytes.HasPrefix([]byte(other), []byte(p)) {
				return errors.New("reading etcd: prefix " + p + " and prefix " + other + " overlap")
			}
		}
	}
	return nil
}
