// SPDX-License-Identifier: Apache-2.0

package etcd

import "golang.org/x/sys/unix"

// mapping is a file mapped into memory, which it keeps from looking like a leak:
// a page once read counts as this process's memory for as long as the kernel has
// room, that of a large file as much as the file.
type mapping struct {
	start uintptr
	size  int64
	since int // bytes read since pages were last given back
}

// resident is how many bytes may be read before the pages are given back. The
// kernel keeps what was in them in its cache, where it may drop it.
const resident = 16 << 20

// read is told that so many bytes have been read.
func (m *mapping) read(n int) {
	if m.since += n; m.since < resident {
		return
	}
	m.since = 0
	// What is read again is mapped again. Without it all works just as well.
	_, _, _ = unix.Syscall(unix.SYS_MADVISE, m.start, uintptr(m.size), unix.MADV_DONTNEED)
}
