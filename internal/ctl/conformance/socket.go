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
			Rule:   "Not every user of the host can connect: anyone who can may decrypt every seed.",
			Source: sourceDocs + "protocol; unix(7), Pathname socket ownership and permissions",
			run:    checkSocketMode,
		},
		{
			Name: "socket-directory", Group: group, Level: Should,
			Rule:   "Not every user of the host can replace the socket.",
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
	if s.endpoint.Abstract() {
		return broken("Use a socket with a path: an abstract socket has no owner and no mode, and every process in the network namespace can connect.", "the socket is abstract")
	}
	info, err := os.Stat(s.endpoint.Address())
	if err != nil {
		return broken("Run this where kube-apiserver runs.", "%v", err)
	}
	mode := info.Mode().Perm()
	if mode&othersWrite == 0 {
		return pass("%#o", mode)
	}
	for dir := range parents(s.endpoint.Address()) {
		info, err := os.Stat(dir)
		if err != nil {
			return broken("Run this where kube-apiserver runs.", "%v", err)
		}
		if info.Mode()&othersSearch == 0 {
			return pass("%#o, in %s with %#o", mode, dir, info.Mode().Perm())
		}
	}
	return broken("Set the mode 0600, or 0660 with the group of kube-apiserver.", "%#o, and every user can reach it", mode)
}

func checkSocketDirectory(_ context.Context, s *subject) outcome {
	if s.endpoint.Abstract() {
		return skip("the socket is abstract")
	}
	direct := true
	for dir := range parents(s.endpoint.Address()) {
		info, err := os.Stat(dir)
		if err != nil {
			return broken("Run this where kube-apiserver runs.", "%v", err)
		}
		// In a sticky directory other users cannot rename or remove the socket, but
		// they can create one before the plugin starts.
		sticky := info.Mode()&fs.ModeSticky != 0
		if info.Mode()&othersWrite != 0 && (direct || !sticky) {
			return broken("Use a separate directory below /run, with mode 0750.", "every user can write to %s (%s)", dir, info.Mode())
		}
		direct = false
	}
	return pass("%s", filepath.Dir(s.endpoint.Address()))
}

// parents yields the directories above path, the nearest first.
func parents(path string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for dir := filepath.Dir(path); yield(dir) && dir != "/"; dir = filepath.Dir(dir) {
		}
	}
}
