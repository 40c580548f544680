// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"context"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
)

func socketChecks() []Check {
	const group = "socket"
	return []Check{
		{
			Name: "socket-mode", Group: group, Level: Should,
			Rule:   "Not everybody on the host can connect: who can may decrypt every seed.",
			Source: sourceDocs + "protocol; unix(7), Pathname socket ownership and permissions",
			run:    checkSocketMode,
		},
		{
			Name: "socket-directory", Group: group, Level: Should,
			Rule:   "Not everybody on the host can put another socket in its place.",
			Source: "unix(7), Pathname socket ownership and permissions",
			run:    checkSocketDirectory,
		},
	}
}

// What others than owner and group may do.
const (
	othersWrite  fs.FileMode = 0o002
	othersSearch fs.FileMode = 0o001
)

func checkSocketMode(_ context.Context, s *subject) outcome {
	if s.endpoint.abstract() {
		return broken("Listen at a path: an abstract socket has no owner and no mode, and every process in the network namespace can connect.", "it is abstract")
	}
	info, err := os.Stat(s.endpoint.address)
	if err != nil {
		return broken("Run this where kube-apiserver runs.", "%v", err)
	}
	mode := info.Mode().Perm()
	if mode&othersWrite == 0 {
		return pass("%#o", mode)
	}
	for dir := range parents(s.endpoint.address) {
		info, err := os.Stat(dir)
		if err != nil {
			return broken("Run this where kube-apiserver runs.", "%v", err)
		}
		if info.Mode()&othersSearch == 0 {
			return pass("%#o, in %s with %#o", mode, dir, info.Mode().Perm())
		}
	}
	return broken("Give it 0600, or 0660 and the group of kube-apiserver.", "%#o, and everybody can reach it", mode)
}

func checkSocketDirectory(_ context.Context, s *subject) outcome {
	if s.endpoint.abstract() {
		return skip("it is abstract: there is none")
	}
	direct := true
	for dir := range parents(s.endpoint.address) {
		info, err := os.Stat(dir)
		if err != nil {
			return broken("Run this where kube-apiserver runs.", "%v", err)
		}
		// In a sticky directory nobody can rename or remove what is another
		// user's, but can put something where nothing is: before the plugin
		// starts.
		sticky := info.Mode()&fs.ModeSticky != 0
		if info.Mode()&othersWrite != 0 && (direct || !sticky) {
			return broken("Use a directory of the plugin's own below /run, with 0750.", "everybody can write to %s (%s)", dir, info.Mode())
		}
		direct = false
	}
	return pass("%s", filepath.Dir(s.endpoint.address))
}

// parents yields the directories above path, the nearest first.
func parents(path string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for dir := filepath.Dir(path); yield(dir) && dir != "/"; dir = filepath.Dir(dir) {
		}
	}
}
