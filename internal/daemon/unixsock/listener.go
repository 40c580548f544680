// SPDX-License-Identifier: Apache-2.0

package unixsock

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Listener is a published socket: a net.Listener that knows whether it still stands at its path. It is safe for
// concurrent use.
type Listener struct {
	path     string
	allowed  []uint32 // nil: all
	log      *zap.Logger
	dir      *directory
	sock     *net.UnixListener
	self     fs.FileInfo
	replaced chan struct{}
	stop     chan struct{}
	stopped  chan struct{}
	close    func() error
}

func newListener(p *Pending, self fs.FileInfo) *Listener {
	l := &Listener{
		path:     p.path,
		allowed:  p.allowed,
		log:      p.log,
		dir:      p.dir,
		sock:     p.sock,
		self:     self,
		replaced: make(chan struct{}),
		stop:     make(chan struct{}),
		stopped:  make(chan struct{}),
	}
	l.close = sync.OnceValue(l.shut)
	go l.watch(p.interval)
	return l
}

// Accept waits for the next connection of a user in Options.AllowUIDs. Those of others are closed before a byte of
// them is read, with a warning in the log. After Close it returns an error that is net.ErrClosed.
//
// Who a peer is, the kernel noted when it called connect(2) (SO_PEERCRED, unix(7)): a process that changes its user
// afterwards, or hands the open connection to another one, stays who it was.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.sock.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if l.admits(conn) {
			return conn, nil
		}
		_ = conn.Close()
	}
}

func (l *Listener) admits(conn *net.UnixConn) bool {
	if l.allowed == nil {
		return true
	}
	peer, err := credentials(conn)
	if err != nil {
		l.log.Warn("refusing a connection because the kernel does not say whose it is", zap.String("path", l.path), zap.Error(err))
		return false
	}
	if slices.Contains(l.allowed, peer.Uid) {
		return true
	}
	l.log.Warn("refusing a connection of a user who is not allowed",
		zap.String("path", l.path), zap.Uint32("uid", peer.Uid), zap.Int32("pid", peer.Pid))
	return false
}

// Addr returns the published path, not the temporary one the socket was bound to.
func (l *Listener) Addr() net.Addr {
	return &net.UnixAddr{Name: l.path, Net: "unix"}
}

// Replaced is closed once another socket has been seen at the path: a successor has taken over, new connections go
// to it, and what is left to do is to finish the connections already accepted. It is never closed after Close.
//
// A path that merely disappears is not a replacement. It is logged as a warning, because nobody can connect any more
// until the process is restarted.
func (l *Listener) Replaced() <-chan struct{} {
	return l.replaced
}

// Close stops listening and removes the socket from the path, unless the path is a successor's by now. Accepted
// connections are not touched. Every further call returns the first one's result.
func (l *Listener) Close() error {
	return l.close()
}

func (l *Listener) shut() error {
	close(l.stop)
	<-l.stopped
	// Removed before closed: while the socket is open its inode number cannot be given to another file, so the
	// comparison in unlink cannot be fooled.
	l.unlink()
	return errors.Join(l.sock.Close(), l.dir.close())
}

// unlink logs instead of returning: servers drop the error of a listener they close, and a socket left behind is
// stale, which the next start copes with.
func (l *Listener) unlink() {
	log := l.log.With(zap.String("path", l.path))
	unlock, err := l.dir.lock(context.Background())
	if err != nil {
		log.Warn("leaving the socket behind", zap.Error(err))
		return
	}
	defer unlock()

	base := filepath.Base(l.path)
	info, err := l.dir.root.Lstat(base)
	if err == nil && !os.SameFile(info, l.self) {
		return
	}
	if err == nil {
		err = l.dir.root.Remove(base)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("leaving the socket behind", zap.Error(cause(err)))
	}
}

func (l *Listener) watch(interval time.Duration) {
	defer close(l.stopped)
	tick := time.NewTicker(interval)
	defer tick.Stop()

	gone := false
	for {
		select {
		case <-l.stop:
			return
		case <-tick.C:
		}
		// By name, not through the held directory: clients too go by the name, and a directory removed and made
		// anew holds a successor's socket.
		info, err := os.Lstat(l.path)
		switch {
		case err == nil && os.SameFile(info, l.self):
			gone = false
		case err == nil && info.Mode().Type() == fs.ModeSocket:
			close(l.replaced)
			return
		case !gone:
			gone = true
			l.log.Warn("the socket is gone from its path: connections go on, new ones cannot be made until a restart",
				zap.String("path", l.path), zap.Error(err))
		}
	}
}
