// SPDX-License-Identifier: Apache-2.0

package watch_test

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// dir is a temporary directory with methods for the ways of changing files. Names
// are relative to it; missing parents are created.
type dir struct {
	t    *testing.T
	path string
}

func newDir(t *testing.T) dir { return dir{t, t.TempDir()} }

func (d dir) at(name string) string { return filepath.Join(d.path, name) }

func (d dir) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

func (d dir) mkdir(name string) {
	d.t.Helper()
	d.must(os.MkdirAll(d.at(name), 0o755))
}

// write writes the file in place, and creates it if it is missing.
func (d dir) write(name, data string) {
	d.t.Helper()
	d.mkdir(filepath.Dir(name))
	d.must(os.WriteFile(d.at(name), []byte(data), 0o600))
}

func (d dir) append(name, data string) {
	d.t.Helper()
	f, err := os.OpenFile(d.at(name), os.O_WRONLY|os.O_APPEND, 0)
	d.must(err)
	_, err = f.WriteString(data)
	d.must(err)
	d.must(f.Close())
}

// render replaces the file as Vault Agent's template engine does.
func (d dir) render(name, data string) {
	d.t.Helper()
	f, err := os.CreateTemp(filepath.Dir(d.at(name)), "")
	d.must(err)
	_, err = f.WriteString(data)
	d.must(err)
	d.must(f.Sync())
	d.must(f.Close())
	d.must(os.Chmod(f.Name(), 0o644))
	d.must(os.Rename(f.Name(), d.at(name)))
}

// publish replaces config.yaml in the volume as kubelet does for ConfigMaps and
// Secrets (k8s.io/kubernetes pkg/volume/util/atomic_writer.go).
func (d dir) publish(volume, data string) {
	d.t.Helper()
	d.mkdir(volume)
	old, oldErr := os.Readlink(d.at(volume + "/..data"))

	stamped, err := os.MkdirTemp(d.at(volume), "..2026_01_02_03_04_05.")
	d.must(err)
	d.must(os.WriteFile(stamped+"/config.yaml", []byte(data), 0o600))
	d.must(os.Symlink(filepath.Base(stamped), d.at(volume+"/..data_tmp")))
	d.rename(volume+"/..data_tmp", volume+"/..data")
	if oldErr != nil {
		d.link("..data/config.yaml", volume+"/config.yaml")
		return
	}
	d.remove(volume + "/" + old)
}

// link makes name a symbolic link to target, and replaces what was there.
func (d dir) link(target, name string) {
	d.t.Helper()
	d.mkdir(filepath.Dir(name))
	d.must(os.Symlink(target, d.at(name+".tmp")))
	d.rename(name+".tmp", name)
}

func (d dir) rename(from, to string) {
	d.t.Helper()
	d.must(os.Rename(d.at(from), d.at(to)))
}

func (d dir) exchange(a, b string) {
	d.t.Helper()
	d.must(unix.Renameat2(unix.AT_FDCWD, d.at(a), unix.AT_FDCWD, d.at(b), unix.RENAME_EXCHANGE))
}

func (d dir) remove(name string) {
	d.t.Helper()
	d.must(os.RemoveAll(d.at(name)))
}
