// SPDX-License-Identifier: Apache-2.0

// Package etcdtest makes files as etcd writes them, without an etcd: databases
// with revisions, deletions and compactions, and snapshots of them. It is for
// tests.
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

// File is a database that is being written. It is not safe for concurrent use.
// What goes wrong in it comes out of Close or Snapshot.
type File struct {
	name     string
	db       *bbolt.DB
	tx       *bbolt.Tx
	pending  int
	revision int64
	err      error
}

// Create makes an empty database. Like etcd's first one, what is put first has
// revision 2.
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

// PutLeased writes a value that has a lease, as events do.
func (f *File) PutLeased(key string, value []byte, lease int64) int64 {
	f.revision++
	f.write(f.revision, false, &mvccpb.KeyValue{Key: []byte(key), Value: value, ModRevision: f.revision, CreateRevision: f.revision, Version: 1, Lease: lease})
	return f.revision
}

// Delete deletes a key and returns the revision at which it did.
func (f *File) Delete(key string) int64 {
	f.revision++
	f.write(f.revision, true, &mvccpb.KeyValue{Key: []byte(key)})
	return f.revision
}

// Compact forgets what had been overwritten or deleted at a revision, and the
// deletions.
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

// Raw puts anything into the key bucket.
func (f *File) Raw(key, value []byte) {
	f.do(func() error { return f.bucket().Put(key, value) })
}

// Close ends the writing: the file is then a member's database.
func (f *File) Close() error {
	if f.tx != nil {
		f.do(f.tx.Commit)
	}
	if err := f.db.Close(); err != nil {
		return err
	}
	return f.err
}

// Snapshot ends the writing and adds what makes the file a snapshot, the SHA-256
// of all that it holds.
func (f *File) Snapshot() error {
	if err := f.Close(); err != nil {
		return err
	}
	return AddChecksum(f.name)
}

// AddChecksum adds the SHA-256 of a file to its end.
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
		f.bucket().FillPercent = 0.9 // as etcd does, which writes in order
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

// do does nothing once something has gone wrong.
func (f *File) do(what func() error) {
	if f.err == nil {
		f.err = what()
	}
}
