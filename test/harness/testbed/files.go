// SPDX-License-Identifier: Apache-2.0

package testbed

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
)

// Replace is [Bed.Write] by rename, so that readers never see a partial file.
func (b *Bed) Replace(path, content string) {
	b.t.Helper()
	fresh := b.Write(path+".new", content)
	if err := os.Rename(fresh, strings.TrimSuffix(fresh, ".new")); err != nil {
		b.t.Fatal(err)
	}
}

// Project replaces all files of a directory atomically, as kubelet does with a
// volume: the files are symlinks through ..data, which is switched to another
// directory (kubelet's atomic_writer.go).
func (b *Bed) Project(dir string, files map[string]string) {
	b.t.Helper()
	if err := Project(dir, files); err != nil {
		b.t.Fatal(err)
	}
}

// Project is [Bed.Project] that returns an error.
func Project(dir string, files map[string]string) error {
	data := filepath.Join(dir, "..data")
	before, _ := os.Readlink(data) // "" on the first call
	err := os.MkdirAll(dir, 0o700)
	fresh, err2 := os.MkdirTemp(dir, "..")
	errs := []error{err, err2}
	for name, content := range files {
		errs = append(errs, os.WriteFile(filepath.Join(fresh, name), []byte(content), 0o600))
		if before == "" {
			errs = append(errs, os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)))
		}
	}
	errs = append(errs, os.Symlink(filepath.Base(fresh), data+"_tmp"), os.Rename(data+"_tmp", data))
	if before != "" {
		errs = append(errs, os.RemoveAll(filepath.Join(dir, before)))
	}
	return errors.Join(errs...)
}
