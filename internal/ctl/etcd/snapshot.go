// SPDX-License-Identifier: Apache-2.0

package etcd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"
)

// Snapshot reads a file that `etcdctl snapshot save` wrote, or a copy of a
// member's database (member/snap/db). It opens the file for reading only. It is
// not safe for concurrent use.
//
// The file is ordered by revision, not by key, and a key may have several revisions.
// So Snapshot reads it backwards: the first revision of a key that it meets is the
// newest, a value or a deletion; later ones are older. It reads everything once, and
// needs memory only for the set of keys, 20 to 40 bytes each, whatever the size of
// values and the number of revisions.
type Snapshot struct {
	// File is the name of the file.
	File string
	// Older, if not nil, is called for each value that was overwritten or deleted but
	// not yet compacted. kube-apiserver compacts etcd every five minutes.
	Older func(Object)
	// Outside, if not nil, is called for each object under none of the prefixes.
	Outside func(Object) error
	// Progress is called with the progress of the reading; may be nil.
	Progress Progress
}

// Read reads the file as [Reader] says, newest revision first. It refuses a file with a
// wrong checksum before it uses any part of it.
func (s *Snapshot) Read(ctx context.Context, prefixes []string, each func(Object) error) (Reading, error) {
	if err := CheckPrefixes(prefixes); err != nil {
		return Reading{}, err
	}
	size, checksum, err := s.check(ctx)
	if err != nil {
		return Reading{}, err
	}
	db, err := s.open()
	if err != nil {
		return Reading{}, err
	}
	defer db.Close()
	r := &scan{snapshot: s, size: size, prefixes: prefixes, each: each}
	r.reading.Checksum = checksum
	err = r.guarded(func() error {
		return db.View(func(tx *bbolt.Tx) error { return r.run(ctx, tx) })
	})
	return r.reading, err
}

// check returns the file's size and checks its checksum.
func (s *Snapshot) check(ctx context.Context) (int64, Checksum, error) {
	file, err := os.Open(s.File)
	if err != nil {
		return 0, "", err
	}
	defer file.Close()
	info, err := file.Stat()
	switch {
	case err != nil:
		return 0, "", err
	case !info.Mode().IsRegular():
		return 0, "", fmt.Errorf("%s is not a regular file: copy the snapshot to a disk first", s.File)
	case info.Size() == 0:
		return 0, "", fmt.Errorf("%s is empty: use another snapshot", s.File)
	}
	checksum, err := checkSum(ctx, file, info.Size(), s.Progress)
	return info.Size(), checksum, err
}

func (s *Snapshot) open() (*bbolt.DB, error) {
	// A running member has locked its database.
	db, err := bbolt.Open(s.File, 0, &bbolt.Options{ReadOnly: true, Timeout: time.Second, NoStatistics: true})
	switch {
	case errors.Is(err, bbolterrors.ErrTimeout):
		return nil, fmt.Errorf("%s is in use by a running etcd: use --endpoints, or a file of etcdctl snapshot save", s.File)
	case err != nil:
		return nil, fmt.Errorf("%s is not an etcd snapshot, or its beginning is damaged (%w): give an uncompressed file of etcdctl snapshot save", s.File, err)
	}
	return db, nil
}
