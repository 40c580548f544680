// SPDX-License-Identifier: Apache-2.0

// Package unixsock listens on a unix socket that survives crashes, restarts and upgrades of the daemon. Linux only.
//
// A new socket gets its mode and group under a temporary name, then it is renamed over its path. So the path is never
// missing during a takeover, the mode is never wrong, and a stale socket needs no removal. If the path is removed, a new
// socket is published; the kernel cannot link the old one again (linkat(2): ENOENT without any link). A socket passed by
// systemd is used as it is: systemd owns the path, the mode and the group, and keeps the socket open between two
// processes.
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

	"github.com/trousseau-io/trousseau/internal/endpoint"
)

// patience is how long the socket may be missing at its path before Accept fails: enough for a tool that removes the
// directory and creates it again.
const patience = 10 * time.Second

// Options says where to listen and who may connect.
type Options struct {
	// Path is the socket's path, in a form that endpoint.ParsePath accepts. Its directory must exist and be writable.
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
	passed   bool // by systemd, which owns the path
	replaced chan struct{}
	stop     context.CancelFunc
	watching sync.WaitGroup
	close    func() error

	mu   sync.Mutex // guards what follows; only watch changes it
	sock *net.UnixListener
	file *os.File // the file that sock is bound to, opened with O_PATH; nil: a passed socket that was not at its path
	deaf error    // what Published returns
}

// Listen returns the socket that systemd passed to this process, or puts a new socket at o.Path in one step. It
// replaces a stale socket. It replaces the socket of a live process only with o.Takeover; otherwise the error is an
// *InUseError. The path is unchanged after every error. The caller closes the Listener.
//
// These are errors too: a regular file, directory or symbolic link at o.Path; a directory that is missing or not
// writable; more than one socket from systemd, or one with another address. Processes that call Listen at the same
// time take turns; Listen waits at most 5 s, or until ctx is done.
func Listen(ctx context.Context, o Options) (_ *Listener, err error) {
	if o.Path, err = endpoint.ParsePath(o.Path); err != nil {
		return nil, err
	}
	o.Mode = cmp.Or(o.Mode, 0o600)
	o.Logger = cmp.Or(o.Logger, zap.NewNop()).With(zap.String("path", o.Path))
	l := &Listener{o: o, replaced: make(chan struct{})}
	l.close = sync.OnceValue(l.shut)
	l.sock, err = inherit(o.Path)
	switch l.passed = l.sock != nil; {
	case err != nil:
	case !l.passed:
		err = l.listen(ctx, o.Takeover)
	case served(o.Path):
		l.file, _ = openPath(o.Path) // if it was removed just now, watch says so
	}
	if err != nil {
		return nil, err
	}
	l.warnIfOpen()
	watch, stop := context.WithCancel(context.WithoutCancel(ctx))
	l.stop = stop
	l.watching.Go(func() { l.watch(watch) })
	return l, nil
}

// Await waits until no process serves the socket at o.Path, and then is Listen, but never replaces the socket of a live
// process. A socket without a process is replaced within a second. If nothing is at the path, Await leaves a live
// process 3 s to publish its socket again. The error is that of ctx if ctx is done first.
func Await(ctx context.Context, o Options) (*Listener, error) {
	const looks = 3
	o.Takeover = false
	for missing := 0; ; {
		if served(o.Path) {
			missing = 0
		} else if _, err := os.Lstat(o.Path); err == nil {
			missing = looks
		} else {
			missing++
		}
		if missing >= looks {
			l, err := Listen(ctx, o)
			if _, again := errors.AsType[*InUseError](err); !again {
				return l, err
			}
			missing = 0
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(time.Second):
		}
	}
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

// listen puts a new socket at the path, and closes the one that was there before.
func (l *Listener) listen(ctx context.Context, takeover bool) error {
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
	case live && !takeover:
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
	sock := listener.(*net.UnixListener)
	sock.SetUnlinkOnClose(false) // the path may be a successor's by then
	file, err := permit(temporary, gid, l.o.Mode)
	if err == nil {
		err = cause(os.Rename(temporary, path))
	}
	if err != nil {
		_ = file.Close()
		return errors.Join(fmt.Errorf("publishing socket %s: %w", l.o.Path, err), os.Remove(temporary), sock.Close())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sock != nil {
		_ = l.file.Close()
		_ = l.sock.Close() // Accept continues with the new one
	}
	l.sock, l.file = sock, file
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

// permit sets the group and mode of a file and returns it. It opens the file only once, because the name could become
// a symbolic link in a directory that other users can write to.
func permit(path string, gid int, mode fs.FileMode) (*os.File, error) {
	file, err := openPath(path)
	if err != nil {
		return nil, err
	}
	opened := fmt.Sprintf("/proc/self/fd/%d", file.Fd())
	if err = os.Chown(opened, -1, gid); err == nil {
		err = os.Chmod(opened, mode.Perm())
	}
	if err != nil {
		err = fmt.Errorf("setting mode %#o and group %d as uid %d: %w; the process must be a member of that group", mode, gid, os.Geteuid(), cause(err))
	}
	return file, err
}

func openPath(path string) (*os.File, error) {
	file, err := os.OpenFile(path, unix.O_PATH|unix.O_NOFOLLOW, 0)
	return file, cause(err)
}

// Accept waits for the next connection of a user in Options.AllowUIDs: the user at the time of connect(2). It closes
// other connections before it reads from them, and logs a warning. It fails when the socket has been missing at its path
// for 10 s and cannot be published again; a socket from systemd never does. After Close the error is net.ErrClosed.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		sock := l.current()
		conn, err := sock.Accept()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded): // set by watch
			return nil, fmt.Errorf("%w; gave up after %s, a restart tries again", l.Published(), patience)
		case err != nil && sock != l.current():
			continue // it was published again
		case err != nil || l.o.AllowUIDs == nil:
			return conn, err
		}
		peer, err := credentials(conn.(*net.UnixConn))
		if err == nil && (slices.Contains(l.o.AllowUIDs, peer.Uid) || int(peer.Pid) == os.Getpid()) {
			return conn, nil
		}
		_ = conn.Close()
		l.o.Logger.Warn("connection refused, user not allowed", zap.Uint32("uid", peer.Uid), zap.Int32("pid", peer.Pid), zap.Error(err))
	}
}

func (l *Listener) current() *net.UnixListener {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sock
}

// Dial connects to this socket as a client does, but whatever is at its path, and whether or not Options.AllowUIDs has
// this process's user. The error is fs.ErrPermission if the socket's mode excludes that user, and fs.ErrNotExist after
// Close and for a socket from systemd that was not at its path. Dial does not block.
func (l *Listener) Dial(ctx context.Context) (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil, fs.ErrNotExist
	}
	return new(net.Dialer).DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d", l.file.Fd()))
}

// FromSystemd returns whether systemd passed the socket, so that connections may have waited in it.
func (l *Listener) FromSystemd() bool { return l.passed }

// Addr returns the socket's path, not the temporary one it was bound to.
func (l *Listener) Addr() net.Addr { return &net.UnixAddr{Name: l.o.Path, Net: "unix"} }

// Published returns nil if the socket was at its path a second ago, and otherwise why a new connection cannot reach it.
// It does no I/O.
func (l *Listener) Published() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.deaf
}

// Replaced is closed within a second after another live process has put its socket at the path: that process gets all
// new connections. It is never closed after Close, nor for a socket from systemd.
func (l *Listener) Replaced() <-chan struct{} { return l.replaced }

// Close stops listening and removes the socket from the path, unless a successor or systemd owns the path. Accepted
// connections stay open. Further calls return the result of the first.
func (l *Listener) Close() error { return l.close() }

func (l *Listener) shut() error {
	l.stop()
	l.watching.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.passed {
		dir, err := lockDirectory(context.Background(), filepath.Dir(l.o.Path))
		if err == nil {
			defer dir.Close()
			if l.atPath() {
				err = os.Remove(l.o.Path)
			}
		}
		if err != nil { // gRPC drops an error of Close. The next start replaces the socket.
			l.o.Logger.Warn("cannot remove the socket", zap.Error(err))
		}
	}
	_ = l.file.Close()
	l.file = nil
	return l.sock.Close()
}

// atPath returns whether the path leads to the socket. While the socket is open, no other file can get its inode
// number, which SameFile compares.
func (l *Listener) atPath() bool {
	own, err := l.file.Stat()
	if err != nil { // there is no file
		return false
	}
	found, err := os.Lstat(l.o.Path)
	return err == nil && os.SameFile(own, found)
}

// watch keeps the socket at its path, until ctx is done, another process has taken the path over, or the socket has been
// missing for too long.
func (l *Listener) watch(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for missing := (time.Time{}); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := l.keep(ctx)
		if ctx.Err() != nil {
			return
		}
		l.mu.Lock()
		l.deaf = err
		l.mu.Unlock()
		_, replaced := errors.AsType[*InUseError](err)
		switch {
		case err == nil:
			missing = time.Time{}
		case replaced:
			close(l.replaced)
			return
		case missing.IsZero():
			missing = time.Now()
			l.o.Logger.Warn("socket is gone from its path", zap.Error(err))
		case !l.passed && time.Since(missing) >= patience:
			_ = l.sock.SetDeadline(time.Unix(1, 0)) // Accept returns
			return
		}
	}
}

// keep returns nil if the socket is at its path, or has been published again. The error is an *InUseError if the path is
// another live process's.
func (l *Listener) keep(ctx context.Context) error {
	switch {
	case l.atPath():
		return nil
	case l.passed:
		return errors.New("gone from its path, which belongs to systemd; stop this service and its socket unit, then start both")
	case served(l.o.Path):
		return &InUseError{Path: l.o.Path}
	}
	if err := l.listen(ctx, false); err != nil {
		return fmt.Errorf("gone from its path, and cannot be published again: %w", err)
	}
	l.o.Logger.Warn("socket was gone from its path; published again")
	return nil
}
