// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks is how many symbolic links Linux follows in one path, see path_resolution(7).
const maxLinks = 40

// directories lists what must be readable for the named file to be followed through its changes: its directory, the
// one that its symbolic links lead to, and those above, in case the directory itself is replaced.
func directories(file string) []string {
	dirs := []string{filepath.Dir(file), filepath.Dir(destination(file))}
	for _, dir := range slices.Clone(dirs) {
		above := []string{filepath.Dir(dir)}
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			above = append(above, filepath.Dir(real))
		}
		dirs = append(dirs, slices.DeleteFunc(above, shared)...)
	}
	return dirs
}

// mounted reports whether something is mounted at a path, so that no other file can take its place.
func mounted(path string) bool {
	var stat unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, 0, &stat)
	return err == nil && stat.Attributes_mask&stat.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
}

// destination follows the symbolic links at the end of a path, also to where nothing is yet.
func destination(name string) string {
	for range maxLinks {
		target, err := os.Readlink(name)
		if err != nil {
			break
		}
		if !filepath.IsAbs(target) {
			dir, err := filepath.EvalSymlinks(filepath.Dir(name))
			if err != nil {
				break
			}
			target = filepath.Join(dir, target)
		}
		name = target
	}
	return name
}

// systemTrees hold files of many programs, down to their last directories.
var systemTrees = []string{"boot", "dev", "etc", "home", "proc", "root", "run", "sys", "usr", "var"}

// shared reports whether a directory holds what is nobody's business here.
func shared(dir string) bool {
	top, below, _ := strings.Cut(strings.TrimPrefix(dir, "/"), "/")
	return below == "" || slices.Contains(systemTrees, top)
}

// resolverFiles are those that Go's resolver reads, whenever they have changed.
var resolverFiles = []string{"/etc/hosts", "/etc/nsswitch.conf", "/etc/resolv.conf"}

// processFiles are what the metrics called process_* come from. For the CPU limit the Go runtime has its cgroup's
// files open (runtime/cgroup_linux.go).
var processFiles = []string{"/proc/self", "/proc/stat"}

// podFiles is where Kubernetes mounts the pod's own token and the cluster's CA.
const podFiles = "/var/run/secrets/kubernetes.io"

// rootFiles are where crypto/x509 looks for the roots of trust (root_linux.go), which it does when it first needs
// them, and where distributions' links from there lead.
var rootFiles = []string{
	"/etc/ssl/certs",
	"/etc/ssl/certs/ca-certificates.crt",
	"/etc/ssl/ca-bundle.pem",
	"/etc/ssl/cert.pem",
	"/etc/pki/tls/certs",
	"/etc/pki/tls/certs/ca-bundle.crt",
	"/etc/pki/tls/cacert.pem",
	"/etc/pki/ca-trust/extracted",
	"/usr/share/ca-certificates",
	"/usr/local/share/ca-certificates",
	"/usr/share/pki",
	"/var/lib/ca-certificates",
}

// systemPaths lists what is readable whatever the configuration says; not all of it exists everywhere.
func systemPaths(resolver []string) []string {
	paths := slices.Concat(processFiles, rootFiles, resolver, []string{podFiles})
	for _, file := range resolver {
		// Another file can be renamed over it. Where a link leads, that is a directory such as /run/systemd/resolve.
		if to := destination(file); !mounted(to) {
			paths = append(paths, filepath.Dir(to))
		}
	}
	if file := os.Getenv("SSL_CERT_FILE"); file != "" {
		paths = append(paths, file)
	}
	if dirs := os.Getenv("SSL_CERT_DIR"); dirs != "" {
		paths = append(paths, strings.Split(dirs, ":")...)
	}
	return paths
}
