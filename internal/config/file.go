// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Opener returns the content of a file named in the configuration. The name is absolute. Its errors are shown to the
// operator.
type Opener func(name string) ([]byte, error)

// ReadFile is [os.ReadFile] with bounds: it refuses what is larger than [MaxSize] or no regular file, and does not wait
// for the other end of a named pipe. Symbolic links are followed, as Kubernetes' volumes need. Errors are
// [*fs.PathError]. It can serve as an [Opener].
func ReadFile(name string) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ENXIO) { // what Linux says of a socket
		return nil, &fs.PathError{Op: "read", Path: name, Err: errNotRegular}
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // opened for reading: nothing can be lost
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "read", Path: name, Err: errNotRegular}
	}
	content, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		return nil, err
	}
	if len(content) > MaxSize {
		return nil, &fs.PathError{Op: "read", Path: name, Err: errTooLarge}
	}
	return content, nil
}

var (
	errNotRegular = errors.New("not a regular file")
	errTooLarge   = errors.New("larger than 1 MiB")
)

// file reads the file that a field names, or the file whenAbsent when the field is absent. ok is false when there is
// neither, and when the field is refused.
func (p *parser) file(s section, name, whenAbsent string) (content []byte, file string, ok bool) {
	file, ok = p.text(s, name)
	if !s.has(name) && whenAbsent != "" {
		file, ok = whenAbsent, true
	}
	if !ok {
		return nil, "", false
	}
	refuse := func(format string, args ...any) ([]byte, string, bool) {
		p.refuse(s.lineOf(name), s.full(name), format, args...)
		return nil, "", false
	}
	if !filepath.IsAbs(file) {
		// Not shown: it may be the secret itself where the name of its file belongs.
		return refuse("must be the full name of a file, beginning with /")
	}
	content, err := p.open(file)
	if err != nil {
		return refuse("reading %s: %s", show(file), reason(err))
	}
	return content, file, true
}

// reason returns the text of an error without the file name, which may not be fit to be shown.
func reason(err error) string {
	if pathError, ok := errors.AsType[*fs.PathError](err); ok {
		return pathError.Err.Error()
	}
	return err.Error()
}
