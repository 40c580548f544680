// SPDX-License-Identifier: Apache-2.0

package etcd

import (
	"encoding/binary"
	"hash/maphash"

	"golang.org/x/sys/unix"
)

// seen is a set of keys. It keeps two 64-bit hashes of each, with seeds that are random
// for this process, so that keys cannot be chosen to collide. Among a million keys the
// chance of a collision is about 1 in 10^26. A key takes 20 to 40 bytes in all.
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

// mapping is a file mapped into memory. Pages that were read count as memory of this
// process until the kernel needs room, so that a large file looks like a leak.
type mapping struct {
	start uintptr
	size  int64
	since int // bytes read since pages were last released
}

// resident is how many bytes are read before the pages are released. Their content
// stays in the kernel's page cache.
const resident = 16 << 20

// read counts n bytes as read, and releases pages if it is time.
func (m *mapping) read(n int) {
	if m.since += n; m.since < resident {
		return
	}
	m.since = 0
	// A page that is read again is mapped again. An error does not matter.
	_, _, _ = unix.Syscall(unix.SYS_MADVISE, m.start, uintptr(m.size), unix.MADV_DONTNEED)
}
