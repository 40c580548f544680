// SPDX-License-Identifier: Apache-2.0

// Package unixsock listens on a unix socket that outlives crashes, restarts and upgrades of the process behind it.
//
// A socket is first bound out of sight with its final mode and group, then renamed over its path. So the path is never
// absent, never open to more than it should be, a stale socket needs no removal, and a successor takes over while its
// predecessor finishes the connections it has. Linux only.
package unixsock

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Options says where to listen and for whom.
type Options struct {
	// Path is the socket's absolute path, as ParseAddr returns it. Its directory must exist and be writable.
	Path string
	// Mode is the socket's permission bits. Connecting takes the write bit (unix(7)). 0 means 0600.
	Mode fs.FileMode
	// Group is the name or number of the group the socket is given to; "" leaves it to the kernel.
	Group string
	// AllowUIDs are the users whose connections are accepted, as seen from this process's user namespace: one of
	// another namespace that is not mapped into ours counts as the overflow uid, usually 65534 (user_namespaces(7)).
	// nil means everyone whom Mode lets in; empty but not nil means nobody.
	AllowUIDs []uint32
	// CheckInterval is how often a Listener looks whether it has been replaced. 0 means a second.
	CheckInterval time.Duration
	// Logger may be nil: nothing is logged.
	Logger *zap.Logger
}

// Pending is a socket that is bound and listening but does not stand at its path yet. It is safe for concurrent use.
type Pending struct {
	path     string
	interval time.Duration
	allowed  []uint32
	log      *zap.Logger
	dir      *directory
	staging  string
	sock     *net.UnixListener

	mu   sync.Mutex
	done bool // published or closed: what is above belongs to somebody else
}

// Bind checks o.Path and binds a socket beside it. Nothing is visible at o.Path until Publish; whoever serves it now
// goes on doing so and is reported by Owner. Leftovers of processes killed between Bind and Publish are removed.
//
// A regular file, directory or symbolic link at o.Path is an error, as is a directory that is missing or not
// writable. Bind waits at most a few seconds, or until ctx is done, for another process that is at the same point.
// The caller closes the Pending it gets.
func Bind(ctx context.Context, o Options) (_ *Pending, err error) {
	if err := checkPath(o.Path); err != nil {
		return nil, fmt.Errorf("socket path %q: %w", o.Path, err)
	}
	if o.Mode == 0 {
		o.Mode = 0o600
	}
	if o.Mode != o.Mode.Perm() {
		return nil, fmt.Errorf("socket mode %#o: only permission bits can be set", uint32(o.Mode))
	}
	if o.CheckInterval <= 0 {
		o.CheckInterval = time.Second
	}
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	gid, err := groupID(o.Group)
	if err != nil {
		return nil, err
	}

	dir, err := openDirectory(filepath.Dir(o.Path))
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, dir.close())
		}
	}()
	warnIfOpen(o, dir)

	unlock, err := dir.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if _, _, err := dir.owner(filepath.Base(o.Path)); err != nil {
		return nil, err
	}
	dir.sweep(o.Logger)
	staging, sock, err := dir.listen(o.Mode, gid)
	if err != nil {
		return nil, err
	}
	return &Pending{
		path:     o.Path,
		interval: o.CheckInterval,
		allowed:  slices.Clone(o.AllowUIDs),
		log:      o.Logger,
		dir:      dir,
		staging:  staging,
		sock:     sock,
	}, nil
}

// groupID returns -1, which chown(2) reads as "leave it", for no group.
func groupID(group string) (int, error) {
	if group == "" {
		return -1, nil
	}
	// 2^32-1 is the -1 of chown(2).
	if n, err := strconv.ParseUint(group, 10, 32); err == nil && n < 1<<32-1 {
		return int(n), nil
	}
	g, err := user.LookupGroup(group)
	if err != nil {
		return 0, fmt.Errorf("socket group %q: no such group on this machine; create it or give its number: %w", group, err)
	}
	n, err := strconv.Atoi(g.Gid)
	if err != nil {
		return 0, fmt.Errorf("socket group %q: its number %q is not one: %w", group, g.Gid, err)
	}
	return n, nil
}

func warnIfOpen(o Options, dir *directory) {
	if o.Mode&0o002 != 0 {
		o.Logger.Warn("every user of this machine can connect to the socket", zap.String("path", o.Path), zap.Stringer("mode", o.Mode))
	}
	info, err := dir.file.Stat()
	if err == nil && info.Mode().Perm()&0o002 != 0 && info.Mode()&fs.ModeSticky == 0 {
		o.Logger.Warn("every user of this machine can replace the socket: its directory is writable for all; chmod o-w it", zap.String("directory", dir.path))
	}
}

// Owner asks who listens at the path at this moment. It is false when nobody does: the path is free, the socket there
// is stale, or it cannot be told, of which Publish then returns the reason. It connects to the socket for an instant
// and does not block.
func (p *Pending) Owner() (Owner, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done {
		return Owner{}, false
	}
	owner, ok, err := p.dir.owner(filepath.Base(p.path))
	return owner, ok && err == nil
}

// Publish renames the socket over its path in one step and hands it to the Listener, which the caller closes.
// A stale socket is replaced. A live one is replaced only with takeover, otherwise the error is an *InUseError.
// After any error the socket is still pending: Publish may be called again, or Close.
//
// Of several processes that publish at once, each looks and renames under one lock. Publish waits at most a few
// seconds, or until ctx is done, for that lock.
func (p *Pending) Publish(ctx context.Context, takeover bool) (*Listener, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done {
		return nil, fmt.Errorf("publishing socket %s: %w", p.path, net.ErrClosed)
	}
	unlock, err := p.dir.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()

	if err := p.dir.checkUnmoved(); err != nil {
		return nil, err
	}
	base, staged := filepath.Base(p.path), filepath.Join(p.staging, stagedName)
	owner, live, err := p.dir.owner(base)
	if err != nil {
		return nil, err
	}
	if live && !takeover {
		return nil, &InUseError{Path: p.path, PID: owner.PID}
	}
	self, err := p.dir.root.Lstat(staged)
	if err != nil {
		return nil, fmt.Errorf("looking at the socket bound for %s: %w", p.path, cause(err))
	}
	if err := p.dir.root.Rename(staged, base); err != nil {
		return nil, fmt.Errorf("renaming the new socket to %s: %w", p.path, cause(err))
	}
	p.done = true
	if err := p.dir.discard(p.staging); err != nil {
		p.log.Warn("cannot remove the temporary directory; the next start tries again", zap.Error(err))
	}
	return newListener(p, self), nil
}

// Close gives up: the socket and its temporary directory are removed, and the path is left as it is. After Publish or
// a first Close it does nothing.
func (p *Pending) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done {
		return nil
	}
	p.done = true
	// Removed before closed: see Listener.Close.
	return errors.Join(p.dir.discard(p.staging), p.sock.Close(), p.dir.close())
}
