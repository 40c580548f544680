// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"errors"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// maxLinks is how many symbolic links Linux follows in one path before it
// gives up with ELOOP, see path_resolution(7).
const maxLinks = 40

// lookups yields each step of resolving an absolute path the way the kernel
// does: a directory, named without symbolic links, and the entry that is looked
// up in it. What the path leads to can change only by a change of one of these
// entries, or of the file at the end. The sequence ends early at an entry that
// does not exist or cannot be passed through; a change there is what it takes
// for the path to lead further.
//
// A step is yielded before it is taken, so that whoever starts to watch the
// directory at that point misses nothing.
func lookups(name string) iter.Seq2[string, string] {
	return func(yield func(dir, entry string) bool) {
		dir, links := "/", 0
		rest := strings.Split(name, "/")
		for len(rest) > 0 {
			var entry string
			entry, rest = rest[0], rest[1:]
			switch entry {
			case "", ".":
				continue
			case "..":
				dir = filepath.Dir(dir)
				continue
			}
			if !yield(dir, entry) {
				return
			}
			at := filepath.Join(dir, entry)
			target, err := os.Readlink(at)
			if errors.Is(err, syscall.EINVAL) { // It exists and is not a link.
				dir = at
				continue
			}
			if err != nil {
				return
			}
			if links++; links > maxLinks {
				return
			}
			if filepath.IsAbs(target) {
				dir = "/"
			}
			rest = append(strings.Split(target, "/"), rest...)
		}
	}
}
