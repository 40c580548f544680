// SPDX-License-Identifier: Apache-2.0

// Package unixsock listens on a unix socket that survives crashes, restarts and upgrades of the daemon. Linux only.
//
// A new socket gets its mode and group under a temporary name, then it is renamed over its path. So the path is never
// missing during a takeover, the mode is never wrong, and a stale socket needs no removal. A socket passed by systemd
// is used as it is: systemd owns the path, the mode and the group, and keeps the socket open between two processes.
package unixsock

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// Options says where to listen and who may connect.
type Options struct {
	// Path is the socket's path, in a form that ParseAddr accepts. Its directory must exist and be writable.
	Path string
	// Mode is the socket's permission bits. Connecting takes the write bit (unix(7)). 0 means 0600.
	Mode fs.FileMode
	// Group is the name or number of the socket's group; "" leaves it to the kernel.
	Group string
	// AllowUIDs are the users who may connect, as numbered in this process's user namespace (user_namespaces(7)): a
	// user that is not mapped into it is usually 65534. nil means all that Mode admits; empty but not nil means none.
	AllowUIDs []uint32
	// Takeover allows Listen to replace the socket of a live process.
	Takeover bool
	// Logger may be nil: nothing is logged.
	Logger *zap.Logger
}

// InUseError is the error of Listen if a live process serves the socket.
type InUseError struct {
	Path string
	PID  int // 0: the process is in a PID namespace that is not visible from here
}

func (e *InUseError) Error() string {
	by := fmt.Sprintf("process %d", e.PID)
	if e.PID == 0 {
		by = "a process whose id is not visible from here"
	}
	return fmt.Sprintf("socket %s is served by %s; stop it or start with --takeover", e.Path, by)
}

// Listener is a unix socket as a net.Listener. It is safe for concurrent use.
type Listener struct {
	o        Options
	sock     *net.UnixListener
	self     fs.FileInfo // nil: systemd owns the file
	replaced chan struct{}
	stop     chan struct{}
	watching sync.WaitGroup
	close    func() error
}

// Listen returns the socket that systemd passed to this process, or puts a new socket at o.Path in one step. It
// replaces a stale socket. It replaces the socket of a live process only with o.Takeover; otherwise the error is an
// *InUseError. The path is unchanged after every error. The caller closes the Listener.
//
// These are errors too: a regular file, directory or symbolic link at o.Path; a directory that is missing or not
// writable; more than one socket from systemd, or one with another address. Processes that call Listen at the same
// time take turns; Listen waits at most 5 s, or until ctx is done.
func Listen(ctx context.Context, o Options) (_ *Listener, err error) {
	if o.Path, err = ParseAddr(o.Path); err != nil {
		return nil, err
	}
	o.Mode = cmp.Or(o.Mode, 0o600)
	o.Logger = cmp.Or(o.Logger, zap.NewNop()).With(zap.String("path", o.Path))
	l := &Listener{o: o, replaced: make(chan struct{}), stop: make(chan struct{})}
	l.close = sync.OnceValue(l.shut)
	if l.sock, err = inherit(o.Path); err == nil && l.sock == nil {
		err = l.listen(ctx)
	}
	if err != nil {
		return nil, err
	}
	l.warnIfOpen()
	return l, nil
}

func (l *Listener) warnIfOpen() {
	if info, err := os.Lstat(l.o.Path); err == nil && info.Mode()&0o002 != 0 {
		l.o.Logger.Warn("every user of this machine can connect to the socket", zap.Stringer("mode", info.Mode()))
	}
	info, err := os.Stat(filepath.Dir(l.o.Path))
	if err == nil && info.Mode()&0o002 != 0 && info.Mode()&fs.ModeSticky == 0 {
		l.o.Logger.Warn("every user of this machine can replace the socket: its directory is writable for all; chmod o-w it")
	}
}

func (l *Listener) listen(ctx context.Context) error {
	gid, err := groupID(l.o.Group)
	if err != nil {
		return err
	}
	dir, err := lockDirectory(ctx, filepath.Dir(l.o.Path))
	if err != nil {
		return err
	}
	defer dir.Close()
	switch pid, live, err := ownerOf(l.o.Path); {
	case err != nil:
		return err
	case live && !l.o.Takeover:
		return &InUseError{Path: l.o.Path, PID: pid}
	}

	// In /proc: with a long directory name, the path would be too long to bind.
	proc := fmt.Sprintf("/proc/self/fd/%d/", dir.Fd())
	path, temporary := proc+filepath.Base(l.o.Path), proc+".unixsock"
	_ = os.Remove(temporary) // left by a process that was killed here: we have the lock
	// bind(2) gives the file the mode of the descriptor, less the umask. So no other user can connect before the group
	// and the mode are set. The umask cannot do this: it belongs to the whole process.
	config := net.ListenConfig{Control: func(_, _ string, conn syscall.RawConn) (err error) {
		controlErr := conn.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) })
		return cmp.Or(controlErr, err)
	}}
	listener, err := config.Listen(ctx, "unix", temporary)
	switch {
	case errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS):
		return fmt.Errorf("directory %s is not writable for uid %d: %w; give it to that user or choose another path",
			dir.Name(), os.Geteuid(), cause(err))
	case err != nil:
		return fmt.Errorf("binding a socket in directory %s: %w", dir.Name(), cause(err))
	}
	l.sock = listener.(*net.UnixListener)
	l.sock.SetUnlinkOnClose(false) // the path may be a successor's by then
	if l.self, err = permit(temporary, gid, l.o.Mode); err == nil {
		err = cause(os.Rename(temporary, path))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("publishing socket %s: %w", l.o.Path, err), os.Remove(temporary), l.sock.Close())
	}
	l.watching.Go(l.watch)
	return nil
}

// groupID returns -1, which chown(2) takes for "no change", if there is no group.
func groupID(group string) (int, error) {
	if group == "" {
		return -1, nil
	}
	found, err := user.LookupGroup(group)
	if err == nil {
		return strconv.Atoi(found.Gid)
	}
	gid, numberErr := strconv.ParseUint(group, 10, 32)
	if numberErr != nil || gid == math.MaxUint32 { // the -1 of chown(2)
		return 0, fmt.Errorf("socket group %q: no such group on this machine; create it or give its number: %w", group, err)
	}
	return int(gid), nil
}

// permit sets the group and mode of a file and returns its identity. It opens the file only once, because the name
// could become a symbolic link in a directory that other users can write to.
func permit(path string, gid int, mode fs.FileMode) (fs.FileInfo, error) {
	file, err := os.OpenFile(path, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, cause(err)
	}
	defer file.Close()
	opened := fmt.Sprintf("/proc/self/fd/%d", file.Fd())
	if err = os.Chown(opened, -1, gid); err == nil {
		err = os.Chmod(opened, mode.Perm())
	}
	if err != nil {
		return nil, fmt.Errorf("setting mode %#o and group %d as uid %d: %w; the process must be a member of that group", mode, gid, os.Geteuid(), cause(err))
	}
	return file.Stat()
}

// Accept waits for the next connection of a user in Options.AllowUIDs: the user at the time of connect(2). It closes
// other connections before it reads from them, and logs a warning. After Close the error is net.ErrClosed.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.sock.Accept()
		if err != nil || l.o.AllowUIDs == nil {
			return conn, err
		}
		peer, err := credentials(conn.(*net.UnixConn))
		if err == nil && slices.Contains(l.o.AllowUIDs, peer.Uid) {
			return conn, nil
		}
		_ = conn.Close()
		l.o.Logger.Warn("connection refused, user not allowed", zap.Uint32("uid", peer.Uid), zap.Int32("pid", peer.Pid), zap.Error(err))
	}
}

// FromSystemd returns whether systemd passed the socket, so that connections may have waited in it.
func (l *Listener) FromSystemd() bool { return l.self == nil }

// Addr returns the socket's path, not the temporary one it was bound to.
func (l *Listener) Addr() net.Addr { return &net.UnixAddr{Name: l.o.Path, Net: "unix"} }

// Replaced is closed within a second after another socket is at the path: a successor gets all new connections. It is
// never closed after Close, nor for a socket from systemd. A path without a socket is only logged, as a warning.
func (l *Listener) Replaced() <-chan struct{} { return l.replaced }

// Close stops listening and removes the socket from the path, unless a successor or systemd owns the path. Accepted
// connections stay open. Further calls return the result of the first.
func (l *Listener) Close() error { return l.close() }

func (l *Listener) shut() error {
	close(l.stop)
	l.watching.Wait()
	if l.self != nil {
		dir, err := lockDirectory(context.Background(), filepath.Dir(l.o.Path))
		if err == nil {
			defer dir.Close()
			// While the socket is open, no other file can get its inode number, which SameFile compares.
			if info, statErr := os.Lstat(l.o.Path); statErr == nil && os.SameFile(info, l.self) {
				err = os.Remove(l.o.Path)
			}
		}
		if err != nil { // gRPC drops an error of Close. The next start replaces the socket.
			l.o.Logger.Warn("cannot remove the socket", zap.Error(err))
		}
	}
	return l.sock.Close()
}

// watch closes l.replaced when another socket is at the path.
func (l *Listener) watch() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for gone := false; ; {
		select {
		case <-l.stop:
			return
		case <-tick.C:
		}
		info, err := os.Lstat(l.o.Path)
		switch {
		case err == nil && os.SameFile(info, l.self):
			gone = false
		case err == nil && info.Mode().Type() == fs.ModeSocket:
			close(l.replaced)
			return
		case !gone:
			gone = true
			l.o.Logger.Warn("socket is gone from its path; restart to accept new connections", zap.Error(err))
		}
	}
}
