// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Explain returns err, with which the named file could not be opened, with what to do about it if it is the sandbox
// that refused the file. What errors.Is finds in err remains. Nil is returned as nil.
func (s *Sandbox) Explain(name string, err error) error {
	if s == nil || !errors.Is(err, syscall.EACCES) {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.allows(name) {
		return err
	}
	return &fs.PathError{Op: "open", Path: name, Err: refusal{s.remedy(name)}}
}

// refusal is EACCES with a remedy.
type refusal struct {
	dir string // what --sandbox-path should name
}

func (r refusal) Error() string {
	return fmt.Sprintf("%v: the sandbox was made for the first configuration's directories; restart this process, "+
		"with --sandbox-path=%s if it should be readable whatever configuration says, or with --sandbox=false",
		syscall.EACCES, r.dir)
}

func (r refusal) Unwrap() error { return syscall.EACCES }

// remedy returns the directory that would have to be readable for the file to be.
func (s *Sandbox) remedy(file string) string {
	dir := filepath.Dir(file)
	switch {
	case s.allows(dir): // so it is where a link leads
		return filepath.Dir(destination(file))
	case s.names[dir]: // so it was made anew, as it may be again
		return filepath.Dir(dir)
	}
	return dir
}

// allows reports whether the sandbox lets the file at a path be read, as Landlock decides it: by the inodes of what
// the path leads to and of the directories above. A path that leads nowhere is not the sandbox's to refuse.
func (s *Sandbox) allows(path string) bool {
	if s.granted == nil {
		return true
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return true
	}
	for ; ; real = filepath.Dir(real) {
		info, err := os.Stat(real)
		if err != nil {
			return true
		}
		for _, granted := range s.granted {
			if os.SameFile(info, granted) {
				return true
			}
		}
		if real == "/" {
			return false
		}
	}
}
