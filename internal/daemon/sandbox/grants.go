// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"io/fs"
	"os"
	"strings"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// grants collects what is to remain readable.
type grants struct {
	paths []string
	infos []fs.FileInfo
	rules []landlock.Rule
	held  []*os.File
}

func newGrants() *grants { return &grants{} }

// add makes path readable: a file, or a directory with everything in it. What does not exist is left out.
func (g *grants) add(path string) {
	info, err := os.Stat(path)
	if err != nil {
		return
	}
	access := landlock.AccessFSSet(ll.AccessFSReadFile)
	if info.IsDir() {
		access |= ll.AccessFSReadDir
	}
	if !info.IsDir() || strings.HasPrefix(path, "/proc/") {
		g.hold(path)
	}
	g.paths = append(g.paths, path)
	g.infos = append(g.infos, info)
	g.rules = append(g.rules, landlock.PathAccess(access, path).IgnoreIfMissing())
}

// hold keeps path open for as long as the process lives. The kernel forgets entries that nobody uses, and some file
// systems then make a new inode for the same file, to which the rule for the one before does not apply: procfs always,
// overlayfs for files copied up. Other directories are not held, for whoever unmounts one would find it busy.
func (g *grants) hold(path string) {
	file, err := os.OpenFile(path, unix.O_PATH, 0)
	if err != nil {
		return // It may last without.
	}
	g.held = append(g.held, file)
}

func (g *grants) release() {
	for _, file := range g.held {
		_ = file.Close() // Nothing was written that could be lost.
	}
}
