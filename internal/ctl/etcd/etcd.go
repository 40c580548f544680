// SPDX-License-Identifier: Apache-2.0

// Package etcd reads etcd's keys from its servers or from a snapshot. It streams the
// newest value of each key, and does not interpret values. It writes nothing.
package etcd

import (
	"bytes"
	"context"
	"errors"
)

// Object is one key with its newest value. Key and Value belong to the reader, and are
// valid only until the callback returns.
type Object struct {
	Key, Value []byte
	// Revision is that at which the value was written.
	Revision int64
}

// Reader reads etcd's keys.
type Reader interface {
	// Read calls each for every object whose key begins with one of prefixes: once for
	// each key, and not for deleted keys. An error of each ends the reading and is
	// returned unchanged.
	Read(ctx context.Context, prefixes []string, each func(Object) error) (Reading, error)
}

// Reading describes a completed reading.
type Reading struct {
	// Revision is etcd's revision at the time of the reading.
	Revision int64
	// Checksum is that of the file; snapshot only.
	Checksum Checksum
	// Resumptions are the keys at which the reading continued at a newer revision,
	// because the previous one was compacted; live only.
	Resumptions []Resumption
	// OutsideDenied says that the user may not read all keys outside of the prefixes;
	// live only.
	OutsideDenied bool
}

// Resumption says that the keys from Key on were read at Revision.
type Resumption struct {
	Revision int64
	Key      string
}

// Progress is called from time to time with the progress of a step: done of total, in
// the unit of the step. The steps are constants of this package.
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

// every is the number of objects between two reports of progress, and between two
// checks of the context.
const every = 1024

func hasAnyPrefix(key []byte, prefixes []string) bool {
	for _, p := range prefixes {
		if len(key) >= len(p) && string(key[:len(p)]) == p {
			return true
		}
	}
	return false
}

// CheckPrefixes returns an error if a prefix is empty, or is part of another one.
func CheckPrefixes(prefixes []string) error {
	for i, p := range prefixes {
		if p == "" {
			return errors.New("a prefix is empty")
		}
		for _, other := range prefixes[:i] {
			if bytes.HasPrefix([]byte(p), []byte(other)) || bytes.HasPrefix([]byte(other), []byte(p)) {
				return errors.New("prefix " + p + " and prefix " + other + " overlap")
			}
		}
	}
	return nil
}
