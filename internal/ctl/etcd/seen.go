// SPDX-License-Identifier: Apache-2.0

package etcd

import (
	"encoding/binary"
	"hash/maphash"
)

// seen is a set of keys that keeps 16 bytes of each, however long it is: two
// hashes of 64 bits under seeds that are this process's alone. Among a million
// keys, that two are taken for one has a chance of about one in 10^26; nobody can
// choose keys for it. In all it costs 20 to 40 bytes a key.
type seen struct {
	first, second maphash.Seed
	keys          map[[16]byte]struct{}
}

func newSeen() *seen {
	return &seen{maphash.MakeSeed(), maphash.MakeSeed(), make(map[[16]byte]struct{})}
}

// add reports whether key is new.
func (s *seen) add(key []byte) bool {
	var sum [16]byte
	binary.NativeEndian.PutUint64(sum[:8], maphash.Bytes(s.first, key))
	binary.NativeEndian.PutUint64(sum[8:], maphash.Bytes(s.second, key))
	before := len(s.keys)
	s.keys[sum] = struct{}{}
	return len(s.keys) > before
}
