// SPDX-License-Identifier: Apache-2.0

package staticpod

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"go.uber.org/zap"
)

// The copy of the credentials has the layout of kubelet's volumes, so that several
// files change in one step: ..data leads to a directory with one version of all files,
// and each file's name leads to ..data/NAME.
const (
	data      = "..data"
	temporary = "..tmp"
)

// copied is the directory of the copy.
func (k *Keeper) copied() string { return filepath.Join(k.own, "credentials") }

// keepCredentials makes the copy equal to its source. Nothing but the copy needs the API
// server, so the pod can log in to Vault after all nodes were off. A source without any
// file is taken for a mistake, and the copy is kept.
func (k *Keeper) keepCredentials() error {
	if k.Credentials == "" {
		return nil
	}
	want, err := files(k.Credentials)
	if err != nil {
		return fmt.Errorf("reading the credentials: %w", err)
	}
	if len(want) == 0 {
		return errors.New("the Secret with the credentials is empty; the copy on this node is kept")
	}
	if have, err := files(k.copied()); err == nil && maps.EqualFunc(have, want, bytes.Equal) && k.tidy(want) {
		return nil
	}
	if err := k.copyCredentials(want); err != nil {
		return fmt.Errorf("copying the credentials: %w", err)
	}
	k.Logger.Info("credentials copied to this node", zap.Strings("files", slices.Sorted(maps.Keys(want))))
	return nil
}

// copyCredentials writes all files, lets ..data lead to them, and removes what is no
// longer used.
func (k *Keeper) copyCredentials(want map[string][]byte) error {
	dir := k.copied()
	if err := k.disk.mkdir(dir); err != nil {
		return err
	}
	version, err := os.MkdirTemp(dir, "..version-") // its mode is 0700
	if err != nil {
		return err
	}
	names := slices.Sorted(maps.Keys(want))
	for _, name := range names {
		if err := k.disk.write(filepath.Join(version, name), want[name]); err != nil {
			return err
		}
	}
	if err := cmp.Or(k.disk.sync(version), k.disk.sync(dir)); err != nil {
		return err
	}
	if err := k.disk.link(filepath.Base(version), filepath.Join(dir, data), filepath.Join(dir, temporary)); err != nil {
		return err
	}
	for _, name := range names {
		if target, _ := os.Readlink(filepath.Join(dir, name)); target == filepath.Join(data, name) {
			continue
		}
		if err := k.disk.link(filepath.Join(data, name), filepath.Join(dir, name), filepath.Join(dir, temporary)); err != nil {
			return err
		}
	}
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if _, used := want[e.Name()]; !used && e.Name() != data && e.Name() != filepath.Base(version) {
			err = cmp.Or(err, k.disk.remove(filepath.Join(dir, e.Name())))
		}
	}
	return err
}

// tidy reports whether the copy consists of the files in want alone, each with its mode.
func (k *Keeper) tidy(want map[string][]byte) bool {
	entries, err := os.ReadDir(k.copied())
	if err != nil || len(entries) != len(want)+2 { // ..data and its target
		return false
	}
	for name := range want {
		path := filepath.Join(k.copied(), name)
		target, _ := os.Readlink(path)
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o600 || target != filepath.Join(data, name) {
			return false
		}
	}
	return true
}

// files reads the files in a volume, all of the same version.
func files(dir string) (map[string][]byte, error) {
	if version, err := filepath.EvalSymlinks(filepath.Join(dir, data)); err == nil {
		dir = version
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	found := make(map[string][]byte)
	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue
		}
		if found[e.Name()], err = read(filepath.Join(dir, e.Name())); err != nil {
			return nil, err
		}
	}
	return found, nil
}
