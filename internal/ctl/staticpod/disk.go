// SPDX-License-Identifier: Apache-2.0

package staticpod

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// disk changes files so that a crash between any two system calls leaves each path as
// it was before or as it is after. Nothing is renamed before it is stored.
type disk struct {
	before func(step string) // for tests; may be nil
}

func (d disk) step(name, path string) {
	if d.before != nil {
		d.before(name + " " + filepath.Base(path))
	}
}

// write creates or replaces a file that nobody uses yet.
func (d disk) write(path string, content []byte) error {
	if err := d.remove(path); err != nil {
		return err
	}
	d.step("create", path)
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	d.step("write", path)
	_, err = file.Write(content)
	if err == nil {
		d.step("sync", path)
		err = file.Sync()
	}
	return cmp.Or(err, file.Close())
}

// link creates or replaces a symbolic link in one step; temporary is a path beside it.
func (d disk) link(target, path, temporary string) error {
	if err := d.remove(temporary); err != nil {
		return err
	}
	d.step("link", path)
	if err := os.Symlink(target, temporary); err != nil {
		return err
	}
	return d.rename(temporary, path)
}

// rename moves a file over another one.
func (d disk) rename(from, to string) error {
	d.step("rename", to)
	err := os.Rename(from, to)
	if errors.Is(err, syscall.EXDEV) {
		err = fmt.Errorf("%w: both directories must be on the same mount", err)
	}
	return cmp.Or(err, d.sync(filepath.Dir(to)))
}

// remove removes a file or a directory with everything in it, if it is there.
func (d disk) remove(path string) error {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	d.step("remove", path)
	return cmp.Or(os.RemoveAll(path), d.sync(filepath.Dir(path)))
}

// mkdir creates a directory and its parents, for this user alone.
func (d disk) mkdir(path string) error {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return nil
	}
	parent := filepath.Dir(path)
	if err := d.mkdir(parent); err != nil {
		return err
	}
	d.step("mkdir", path)
	return cmp.Or(os.Mkdir(path, 0o700), d.sync(parent))
}

// sync stores the names in a directory.
func (d disk) sync(path string) error {
	d.step("sync", path)
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return cmp.Or(dir.Sync(), dir.Close())
}
