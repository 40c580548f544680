// SPDX-License-Identifier: Apache-2.0

package encryptionconfig

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/trousseau-io/trousseau/internal/ctl/text"
)

// Replace replaces a file's content atomically, so that kube-apiserver never reads
// half of it. It keeps owner and mode, and follows a symbolic link. It refuses if the
// content is no longer before.
func Replace(file string, before, after []byte) error {
	failed := func(err error) error {
		return fmt.Errorf("writing %s: %w; the file is unchanged", file, text.Errno(err))
	}
	target, err := filepath.EvalSymlinks(file)
	if err != nil {
		return failed(err)
	}
	info, err := os.Stat(target)
	if err != nil {
		return failed(err)
	}
	next, err := os.CreateTemp(filepath.Dir(target), "."+filepath.Base(target)+".")
	if err != nil {
		return failed(err)
	}
	defer func() { _ = os.Remove(next.Name()) }() // already renamed, if all went well
	_, err = next.Write(after)
	err = errors.Join(err, next.Chmod(info.Mode().Perm()))
	if owner, ok := info.Sys().(*syscall.Stat_t); ok {
		err = errors.Join(err, next.Chown(int(owner.Uid), int(owner.Gid)))
	}
	if err := errors.Join(err, next.Sync(), next.Close()); err != nil {
		return failed(err)
	}
	now, err := os.ReadFile(target)
	switch {
	case err != nil:
		return failed(err)
	case !bytes.Equal(now, before):
		return fmt.Errorf("%s has changed since it was read, and is not written: run this again", file)
	}
	if err := os.Rename(next.Name(), target); err != nil {
		return failed(err)
	}
	return nil
}
