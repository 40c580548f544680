// SPDX-License-Identifier: Apache-2.0

package etcd

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"runtime/debug"

	"go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
)

// scan is one reading of a snapshot.
type scan struct {
	snapshot *Snapshot
	size     int64 // of the file
	prefixes []string
	each     func(Object) error
	calling  bool // the caller's code is being run
	met      *seen
	kv       mvccpb.KeyValue
	reading  Reading
}

// guarded runs read. A damaged database without a checksum can make bbolt panic or
// fault on the mapped file; guarded turns both into an error.
func (r *scan) guarded(read func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r.calling {
			return
		}
		if cause := recover(); cause != nil {
			err = r.damaged(errShape.Error())
		}
	}()
	return read()
}

func (r *scan) damaged(how string) error {
	return fmt.Errorf("%s is damaged: %s: use another snapshot", r.snapshot.File, how)
}

// run reads the key bucket backwards.
func (r *scan) run(ctx context.Context, tx *bbolt.Tx) error {
	if r.size < tx.Size() {
		return r.damaged(fmt.Sprintf("it has %d of %d bytes, the end is missing", r.size, tx.Size()))
	}
	bucket, err := r.keys(tx)
	if err != nil {
		return err
	}
	cursor := bucket.Cursor()
	last, _ := cursor.First()
	oldest, _, _ := parseRevision(last)
	newest := int64(0)
	last = nil
	r.met = newSeen()
	mapped := mapping{start: tx.DB().Info().Data, size: r.size}
	n := 0
	for key, value := cursor.Last(); key != nil; key, value = cursor.Prev() {
		revision, tombstone, ok := parseRevision(key)
		if !ok || last != nil && bytes.Compare(key, last) >= 0 {
			return r.damaged("its revisions are not in order")
		}
		last = append(last[:0], key...)
		newest = max(newest, revision)
		if n++; n%every == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			r.snapshot.Progress.tell(StepReading, newest-revision, newest-oldest+1)
		}
		if err := r.take(revision, tombstone, value); err != nil {
			return err
		}
		mapped.read(len(value))
	}
	r.reading.Revision = newest
	r.snapshot.Progress.tell(StepReading, newest-oldest+1, newest-oldest+1)
	return nil
}

// keys returns the bucket of revisions.
func (r *scan) keys(tx *bbolt.Tx) (*bbolt.Bucket, error) {
	check := func(*bbolt.Bucket) error { return nil }
	if r.reading.Checksum == ChecksumMissing {
		file, err := os.Open(r.snapshot.File)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		s := shape{file: file, size: r.size, pageSize: int64(tx.DB().Info().PageSize), seen: make(map[uint64]struct{})}
		check = func(b *bbolt.Bucket) error {
			if b.Root() == 0 { // a small bucket is inside its parent's page
				return nil
			}
			return s.check(uint64(b.Root()))
		}
	}
	if err := check(tx.Cursor().Bucket()); err != nil {
		return nil, r.damaged(err.Error())
	}
	bucket := tx.Bucket([]byte("key"))
	if bucket == nil {
		return nil, fmt.Errorf("%s is a bbolt database, but not of etcd: it has no bucket named key", r.snapshot.File)
	}
	if err := check(bucket); err != nil {
		return nil, r.damaged(err.Error())
	}
	return bucket, nil
}

// take passes one revision to each or Older.
func (r *scan) take(revision int64, tombstone bool, value []byte) error {
	kv := &r.kv
	if int64(len(value)) > r.size {
		return r.damaged(errShape.Error())
	}
	if err := proto.Unmarshal(value, kv); err != nil || len(kv.Key) == 0 {
		return r.damaged(fmt.Sprintf("the value of revision %d is not from etcd", revision))
	}
	each, inside := r.each, hasAnyPrefix(kv.Key, r.prefixes)
	if !inside {
		each = r.snapshot.Outside
	}
	switch {
	case each == nil:
	case r.met.add(kv.Key):
		if tombstone {
			return nil
		}
		r.calling = true
		err := each(Object{Key: kv.Key, Value: kv.Value, Revision: revision})
		r.calling = false
		return err
	case !tombstone && inside && r.snapshot.Older != nil:
		r.calling = true
		r.snapshot.Older(Object{Key: kv.Key, Value: kv.Value, Revision: revision})
		r.calling = false
	}
	return nil
}

// The keys of a database's key bucket are revisions (etcd's
// server/storage/mvcc/revision.go): 8 bytes of the main revision, big-endian, an
// underscore, 8 bytes of the sub revision, and a t for a deletion.
const (
	revisionSize  = 8 + 1 + 8
	tombstoneSize = revisionSize + 1
)

// parseRevision reads a key of the key bucket.
func parseRevision(key []byte) (main int64, tombstone, ok bool) {
	switch {
	case len(key) == tombstoneSize && key[revisionSize] == 't':
		tombstone = true
	case len(key) != revisionSize:
		return 0, false, false
	}
	return int64(binary.BigEndian.Uint64(key)), tombstone, key[8] == '_'
}
