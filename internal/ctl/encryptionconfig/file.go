// SPDX-License-Identifier: Apache-2.0

package encryptionconfig

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// Replace gives a file another text in one step, with its owner and mode, so
// that kube-apiserver never reads a half of it. A symbolic link is followed. It
// refuses if the file is no longer what it was before.
func Replace(file string, before, after []byte) error {
	failed := func(err error) error {
		return fmt.Errorf("writing %s: %w; it is as it was", file, reason(err))
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
	defer func() { _ = os.Remove(next.Name()) }() // gone already, if all went well
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
		return fmt.Errorf("%s has changed meanwhile and is not written: run this again", file)
	}
	if err := os.Rename(next.Name(), target); err != nil {
		return failed(err)
	}
	return nil
}

// reason is what is wrong, without the path, which has been said.
func reason(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}
