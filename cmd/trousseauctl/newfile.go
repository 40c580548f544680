// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// newFile is a file that a flag names. It is written under a temporary name, created
// before the work begins so that an error shows early, and then renamed, so that an
// existing file is replaced as a whole or not at all. A nil *newFile is none.
type newFile struct {
	flag, name string
	temp       *os.File
}

func createFile(flag, name string) (*newFile, error) {
	if name == "" {
		return nil, nil
	}
	temp, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-")
	if err != nil {
		return nil, fmt.Errorf("writing %s: %w", flag, err)
	}
	return &newFile{flag, name, temp}, nil
}

// write writes the file. Only its owner may read it, unless mode says otherwise.
func (n *newFile) write(mode os.FileMode, content func(io.Writer) error) error {
	if n == nil {
		return nil
	}
	for _, step := range []func() error{
		func() error { return content(n.temp) },
		func() error { return n.temp.Chmod(mode) },
		n.temp.Close,
		func() error { return os.Rename(n.temp.Name(), n.name) },
	} {
		if err := step(); err != nil {
			return fmt.Errorf("writing %s: %w", n.flag, err)
		}
	}
	return nil
}

// discard removes the temporary file, if write has not renamed it.
func (n *newFile) discard() {
	if n != nil {
		_ = n.temp.Close()
		_ = os.Remove(n.temp.Name())
	}
}
