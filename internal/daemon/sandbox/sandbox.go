// SPDX-License-Identifier: Apache-2.0

// Package sandbox takes from a process what it has no use for, so that whoever gets hold of the process does not get
// it either. What has been given up cannot be had again, by this process or any that it starts.
//
// [NoDumps] keeps the memory, and with it the secrets in it, out of the reach of debuggers and core files.
//
// [Sandbox] gives up files, in two steps, by means of Landlock (landlock(7)), which asks for no privilege:
//
//  1. [Sandbox.GiveUpWriting], once the socket is bound: no program can be executed and nothing written or removed,
//     but for what it takes to publish the socket and to remove it in the end.
//  2. [Sandbox.GiveUpReading], once there is a valid configuration: only what the configuration names can be read, and
//     what it takes to reach Vault.
//
// The second step waits because the first valid configuration decides which directories are needed. Were it taken at
// the start, a configuration that is rendered a moment later would be held to directories guessed without it. Until
// then the process has made no use of any secret.
//
// Landlock knows a directory by its inode, not by its name: one that is removed and made anew is another one, and is
// refused. So the directory above each of the configuration's is readable as well, unless it belongs to others: /,
// what stands directly in it, and everything in /boot, /dev, /etc, /home, /proc, /root, /run, /sys, /usr and /var.
// There, a directory made anew is refused until the process is restarted, or Options.Paths names the one above.
// Files that are replaced in their directory, as Vault Agent and kubelet do it, and mount points, which cannot be
// removed, need none of this.
//
// The resolver's files are followed too, since a host name that can no longer be resolved would cost more than what
// is in the directory around them. That is /etc on most hosts; in a pod they are mounted, and nothing else is readable.
//
// Connections are not restricted, neither of TCP nor of unix sockets: where Vault is, configuration says anew at any
// time, and where systemd listens, NOTIFY_SOCKET does.
package sandbox

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/landlock-lsm/go-landlock/landlock"
	"go.uber.org/zap"
)

// Options says what the process goes on needing.
type Options struct {
	// SocketDir is the directory of the socket. It must exist when writing is given up.
	SocketDir string

	// Paths are further directories, or files, to read. All are absolute. One that does not exist when reading is
	// given up is logged and left out.
	Paths []string

	// Logger is told what is in force, and why if nothing is. Nil means no log.
	Logger *zap.Logger

	// resolver are the resolver's files. Nil means the system's; tests have their own.
	resolver []string
}

// Sandbox gives up files. Make one with [New]. Its methods may be called from any goroutine; they fail by logging what
// is not in force, since a process that can serve should. A nil Sandbox gives up nothing.
type Sandbox struct {
	socketDir string
	extra     []string
	resolver  []string
	log       *zap.Logger

	mu      sync.Mutex
	absent  bool            // it has been logged that there is no Landlock
	granted []fs.FileInfo   // what is readable; nil while everything is
	names   map[string]bool // of the configuration's directories, as it named them
	held    []*os.File
}

// New returns a Sandbox that has given up nothing yet.
func New(o Options) *Sandbox {
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	if o.resolver == nil {
		o.resolver = resolverFiles
	}
	return &Sandbox{socketDir: o.SocketDir, extra: o.Paths, resolver: o.resolver, log: o.Logger}
}

// GiveUpWriting leaves the process unable to execute, create, change, truncate or remove any file, and to control any
// device. In the socket's directory it can still rename a bound socket into place, from a directory inside, and remove
// sockets and directories. Files that are open already stay as they are, standard error among them.
func (s *Sandbox) GiveUpWriting() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	version, ok := s.available()
	if !ok {
		return
	}
	if err := restrict(writing, landlock.PathAccess(publishing, s.socketDir)); err != nil {
		s.log.Warn("the sandbox does not keep this process from writing and executing", zap.Error(err))
		return
	}
	s.log.Info("this process can execute nothing, and write nowhere but in the socket's directory",
		zap.String("directory", s.socketDir), zap.Int("landlock_version", version))
}

// GiveUpReading leaves the process unable to read anything but the directories of the named files, where their
// symbolic links lead, the directory above each as the package comment says, Options.Paths, and what the system has
// for every program: the roots of trust, the resolver's files, Kubernetes' tokens for this pod, and /proc/self. The
// names must be absolute. Only the first call has an effect.
func (s *Sandbox) GiveUpReading(files []string) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.granted != nil {
		return
	}
	version, ok := s.available()
	if !ok {
		return
	}
	// The local time zone is loaded when it is first used, from files that will be out of reach.
	_, _ = time.Now().Zone()

	names := make(map[string]bool)
	var paths []string
	for _, file := range files {
		names[filepath.Dir(file)] = true
		paths = append(paths, directories(file)...)
	}
	for _, path := range s.extra {
		if _, err := os.Stat(path); err != nil {
			s.log.Warn("this path cannot be made readable; restart once it is there", zap.Error(err))
		}
	}
	paths = slices.Concat(paths, s.extra, systemPaths(s.resolver))
	slices.Sort(paths)

	g := newGrants()
	for _, path := range slices.Compact(paths) {
		g.add(path)
	}
	g.rules = append(g.rules, landlock.PathAccess(listing|refer, s.socketDir))
	if err := restrict(reading, g.rules...); err != nil {
		s.log.Warn("the sandbox does not keep this process from reading", zap.Error(err))
		g.release()
		return
	}
	s.granted, s.held, s.names = g.infos, g.held, names
	s.log.Info("this process can read nothing but these files and directories",
		zap.Strings("paths", g.paths), zap.Int("landlock_version", version))
}

// available says which version of Landlock there is. That there is none is logged once.
func (s *Sandbox) available() (version int, ok bool) {
	if s.absent {
		return 0, false
	}
	version, err := kernelVersion()
	if err != nil {
		s.absent = true
		s.log.Warn("there is no sandbox: this process can read, write and execute what its user can", zap.Error(err))
		return 0, false
	}
	return version, true
}
