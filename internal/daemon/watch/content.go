// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// maxSize bounds what the default reader accepts, in bytes.
const maxSize = 1 << 20

// Content is what the watched files held at one moment. Whoever parses these
// bytes parses what Digest stands for: nothing is read a second time.
//
// Files that change while they are being read may be caught half-written, or
// not fit together. They are reported as they were read, and again when the
// next look finds them complete.
//
// A Content may be copied and used concurrently. Its bytes are shared by all
// copies and must not be modified.
type Content struct {
	// Path is the main file's name, as in Options.
	Path string

	// Main is the content of the main file, nil if it could not be read.
	Main []byte

	// Digest is the hex SHA-256 of the names of all files and of what each
	// contained or why it could not be read.
	Digest string

	// Err says why Main could not be read; it wraps fs.ErrNotExist if the
	// file, or a directory on the way to it, is not there.
	Err error

	related map[string]file
}

// Open returns what the named related file contained in the same look as Main,
// or why it could not be read. A name that Options.Related did not return is
// an error, whether or not there is such a file: Open never reads one.
func (c Content) Open(name string) ([]byte, error) {
	f, ok := c.related[name]
	if !ok {
		return nil, fmt.Errorf("opening %s: not among the files that were read with the main file", name)
	}
	return f.data, f.err
}

// file is the outcome of reading one file.
type file struct {
	data []byte
	err  error
}

// read reads the main file and those related to it, each once, with open.
func read(path string, related func(main []byte) []string, open func(name string) ([]byte, error)) Content {
	sum := sha256.New()
	openAndHash := func(name string) file {
		var f file
		if filepath.IsAbs(name) {
			f.data, f.err = open(name)
		} else {
			f.err = fmt.Errorf("reading %q: not an absolute path", name)
		}
		if f.err != nil {
			f.data = nil // Part of a file could be mistaken for all of it.
		}
		f.hash(sum, name)
		return f
	}

	main := openAndHash(path)
	c := Content{Path: path, Main: main.data, Err: main.err}
	if main.err == nil {
		names := slices.Clone(related(main.data))
		slices.Sort(names) // Their order means nothing, so it must not change the digest.
		names = slices.Compact(names)

		c.related = make(map[string]file, len(names))
		for _, name := range names {
			if name == path {
				c.related[name] = main
				continue
			}
			c.related[name] = openAndHash(name)
		}
	}
	c.Digest = hex.EncodeToString(sum.Sum(nil))
	return c
}

// hash adds f to sum. Every part is preceded by its length, and the content by
// its kind, so that no two sets of files look alike.
func (f file) hash(sum hash.Hash, name string) {
	part := func(p []byte) {
		// A hash.Hash never returns an error.
		_, _ = sum.Write(binary.BigEndian.AppendUint64(nil, uint64(len(p))))
		_, _ = sum.Write(p)
	}
	part([]byte(name))
	if f.err != nil {
		part([]byte("error"))
		part([]byte(f.err.Error()))
		return
	}
	part([]byte("data"))
	part(f.data)
}

// readRegular reads a regular file of at most maxSize bytes.
func readRegular(name string) ([]byte, error) {
	// O_NONBLOCK, because opening a named pipe would otherwise wait for a
	// writer and with it the whole watcher. Regular files ignore it.
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // Nothing was written that could be lost.

	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("reading %s: not a regular file", name)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxSize {
		return nil, fmt.Errorf("reading %s: larger than the limit of %d bytes", name, maxSize)
	}
	return data, nil
}
