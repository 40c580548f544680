// SPDX-License-Identifier: Apache-2.0

package etcd

import "encoding/binary"

// The keys of a database's key bucket are revisions (etcd's
// server/storage/mvcc/revision.go): eight bytes of the main revision, big-endian,
// an underscore, eight of the sub revision, and a t if the key was deleted then.
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
