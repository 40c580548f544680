// SPDX-License-Identifier: Apache-2.0

// Package etcdtest creates etcd files for tests without running etcd: databases with
// revisions, deletions and compactions, and snapshots of them.
package etcdtest

import (
	"crypto/sha256"
	"encoding/binary"
	"io"
	"os"
	"slices"

	"go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
)

// File is a database under construction. It is not safe for concurrent use. Close or
// Snapshot returns the first error.
type File struct {
	name     string
	db       *bbolt.DB
	tx       *bbolt.Tx
	pending  int
	revision int64
	err      error
}

// Create creates an empty database. As in etcd, the first Put gets revision 2.
func Create(name string) (*File, error) {
	db, err := bbolt.Open(name, 0o600, &bbolt.Options{NoSync: true, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType})
	if err != nil {
		return nil, err
	}
	f := &File{name: name, db: db, revision: 1}
	f.begin()
	for _, bucket := range []string{"alarm", "auth", "cluster", "key", "lease", "members", "meta"} {
		f.do(func() error {
			_, err := f.tx.CreateBucketIfNotExists([]byte(bucket))
			return err
		})
	}
	return f, nil
}

// Put writes a value and returns its revision.
func (f *File) Put(key string, value []byte) int64 {
	f.revision++
	f.write(f.revision, false, &mvccpb.KeyValue{Key: []byte(key), Value: value, ModRevision: f.revision, CreateRevision: f.revision, Version: 1})
	return f.revision
}

// PutLeased writes a value with a lease, as events have.
func (f *File) PutLeased(key string, value []byte, lease int64) int64 {
	f.revision++
	f.write(f.revision, false, &mvccpb.KeyValue{Key: []byte(key), Value: value, ModRevision: f.revision, CreateRevision: f.revision, Version: 1, Lease: lease})
	return f.revision
}

// Delete deletes a key and returns the revision of the deletion.
func (f *File) Delete(key string) int64 {
	f.revision++
	f.write(f.revision, true, &mvccpb.KeyValue{Key: []byte(key)})
	return f.revision
}

// Compact removes values that were overwritten or deleted at or before a revision,
// and the deletions.
func (f *File) Compact(revision int64) {
	f.do(func() error {
		newest := make(map[string][]byte) // key → revision
		var gone [][]byte
		err := f.bucket().ForEach(func(at, value []byte) error {
			if int64(binary.BigEndian.Uint64(at)) > revision {
				return nil
			}
			var kv mvccpb.KeyValue
			if err := proto.Unmarshal(value, &kv); err != nil {
				return err
			}
			if before, found := newest[string(kv.Key)]; found {
				gone = append(gone, before)
			}
			newest[string(kv.Key)] = slices.Clone(at)
			return nil
		})
		for _, at := range newest {
			if len(at) == 18 {
				gone = append(gone, at)
			}
		}
		for _, at := range gone {
			err = f.bucket().Delete(at)
		}
		return err
	})
}

// Raw writes an arbitrary entry to the key bucket.
func (f *File) Raw(key, value []byte) {
	f.do(func() error { return f.bucket().Put(key, value) })
}

// Close finishes the file as a member's database.
func (f *File) Close() error {
	if f.tx != nil {
		f.do(f.tx.Commit)
	}
	if err := f.db.Close(); err != nil {
		return err
	}
	return f.err
}

// Snapshot finishes the file as a snapshot: it appends the SHA-256 of the content.
func (f *File) Snapshot() error {
	if err := f.Close(); err != nil {
		return err
	}
	return AddChecksum(f.name)
}

// AddChecksum appends the SHA-256 of a file to the file.
func AddChecksum(name string) error {
	file, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, file); err != nil {
		return err
	}
	if _, err := file.Write(sum.Sum(nil)); err != nil {
		return err
	}
	return file.Close()
}

func (f *File) write(revision int64, tombstone bool, kv *mvccpb.KeyValue) {
	f.do(func() error {
		text, err := proto.Marshal(kv)
		if err != nil {
			return err
		}
		f.bucket().FillPercent = 0.9 // like etcd, which writes in key order
		return f.bucket().Put(key(revision, tombstone), text)
	})
	if f.pending++; f.pending%20_000 == 0 {
		f.do(f.tx.Commit)
		f.begin()
	}
}

func key(revision int64, tombstone bool) []byte {
	at := make([]byte, 17, 18)
	binary.BigEndian.PutUint64(at, uint64(revision))
	at[8] = '_'
	if tombstone {
		at = append(at, 't')
	}
	return at
}

func (f *File) bucket() *bbolt.Bucket { return f.tx.Bucket([]byte("key")) }

func (f *File) begin() {
	f.do(func() (err error) {
		f.tx, err = f.db.Begin(true)
		return err
	})
}

// do does nothing after an error.
func (f *File) do(what func() error) {
	if f.err == nil {
		f.err = what()
	}
}
