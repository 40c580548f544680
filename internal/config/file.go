// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// ReadFile is [os.ReadFile] with limits: it refuses a file that is larger than [MaxSize] or not regular, and does not
// wait for the other end of a named pipe. It follows symbolic links, as Kubernetes' volumes need. Errors are
// [*fs.PathError].
func ReadFile(name string) ([]byte, error) {
	refuse := func(why string) ([]byte, error) {
		return nil, &fs.PathError{Op: "read", Path: name, Err: errors.New(why)}
	}
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ENXIO) { // Linux's error for a socket
		return refuse("not a regular file")
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // opened for reading: nothing can be lost
	if info, err := f.Stat(); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return refuse("not a regular file")
	}
	content, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	switch {
	case err != nil:
		return nil, err
	case len(content) > MaxSize:
		return refuse("larger than 1 MiB")
	}
	return content, nil
}

// reason returns the text of an error without the file name, which could be a secret in the wrong field.
func reason(err error) string {
	if pathError, ok := errors.AsType[*fs.PathError](err); ok {
		return pathError.Err.Error()
	}
	return err.Error()
}
