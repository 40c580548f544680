// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/trousseau-io/trousseau/internal/ctl/fleet"
	"github.com/trousseau-io/trousseau/internal/endpoint"
	"github.com/trousseau-io/trousseau/internal/keyid"
)

// socket checks the plugin's socket, and asks the plugin for its Status as
// kube-apiserver does.
func (e *examination) socket(ctx context.Context) {
	if e.Socket == "" {
		return
	}
	path := e.plainSocket()
	e.check(ctx, "socket", path, func(ctx context.Context) outcome { return listening(ctx, path) })
	e.check(ctx, "socket-mode", path, func(context.Context) outcome { return reachable(path) }, ground("socket", path))
	e.check(ctx, "plugin-status", path, e.status, ground("socket", path))
	grounds := []string{ground("plugin-status", path)}
	if e.config == nil {
		grounds = append(grounds, ground("config", e.Config))
	} else {
		grounds = append(grounds, "vault", "token", ground("key", e.config.Vault.KeyNames[0]))
	}
	e.check(ctx, "plugin-key-id", path, func(context.Context) outcome { return e.keyID() }, grounds...)
}

// listening finds out which process listens. The kernel records it when the process
// calls listen(2) (SO_PEERCRED, unix(7)).
func listening(ctx context.Context, path string) outcome {
	const start = "Start trousseau, or give its --listen-addr with --socket. journalctl -u trousseau shows why it ended."
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fail(start, "the socket does not exist")
	case errors.Is(err, fs.ErrPermission):
		return fail("Run doctor as the user that kube-apiserver runs as.", "this user may not look at it: %s", reason(err))
	case err != nil:
		return fail(start, "%s", reason(err))
	case info.Mode()&fs.ModeSocket == 0:
		return fail("Move it away, and restart trousseau.", "it is not a socket: %s", info.Mode().Type())
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return fail(start, "no process listens: the one that created it has ended")
	case errors.Is(err, fs.ErrPermission):
		return fail("Run doctor as the user that kube-apiserver runs as. --socket-mode and --socket-group say who may connect.", "this user may not connect: %s, %s", reason(err), owner(info))
	case err != nil:
		return fail(start, "%s", reason(err))
	}
	defer conn.Close()
	peer, err := peerOf(conn)
	if err != nil {
		return ok("a process listens")
	}
	if peer.Pid == 0 {
		return ok("a process of user %d in another container listens", peer.Uid)
	}
	return ok("process %d (%s) of user %d listens", peer.Pid, program(peer.Pid), peer.Uid)
}

// peerOf returns the credentials of the listening process; its Pid is 0 if that is in
// another PID namespace.
func peerOf(conn net.Conn) (cred *unix.Ucred, err error) {
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return nil, err
	}
	control := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	return cred, errors.Join(err, control)
}

func program(pid int32) string {
	name, err := os.ReadFile("/proc/" + strconv.Itoa(int(pid)) + "/comm")
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(name))
}

const otherSearches fs.FileMode = 0o001

// reachable judges who may connect: anyone who can connect can have every seed
// decrypted.
func reachable(path string) outcome {
	info, err := os.Stat(path)
	if err != nil {
		return fail("Run doctor again.", "%s", reason(err))
	}
	dir := filepath.Dir(path)
	if parent, err := os.Stat(dir); err == nil && parent.Mode()&otherWrites != 0 && parent.Mode()&fs.ModeSticky == 0 {
		return fail("Use a directory below /run that only trousseau uses, with mode 0750.", "anyone can put another socket in its place: %s has mode %s", dir, octal(parent.Mode()))
	}
	if info.Mode()&otherWrites == 0 {
		return ok("%s", owner(info))
	}
	for up := dir; ; up = filepath.Dir(up) {
		if parent, err := os.Stat(up); err == nil && parent.Mode()&otherSearches == 0 {
			return ok("%s, in %s with mode %s", owner(info), up, octal(parent.Mode()))
		}
		if up == "/" || up == "." {
			return warn("Start trousseau with --socket-mode=0600, or with 0660 and --socket-group.", "anyone can connect, and have every seed decrypted: %s", owner(info))
		}
	}
}

// status asks the plugin for its Status.
func (e *examination) status(ctx context.Context) outcome {
	socket, err := endpoint.Parse(e.Socket)
	if err != nil {
		return fail("Correct --socket.", "%v", err)
	}
	p := fleet.AskPlugin(ctx, socket)
	switch {
	case p.Error != "":
		return fail("Read its log and its /readyz. If --socket-allow-uids is set, run doctor as one of those users.", "Status failed: %s", p.Error)
	case p.Healthz != "ok":
		return fail("Read its log and its /readyz.", "its healthz is not ok: %s", p.Healthz)
	}
	e.plugin = &p
	return ok("ok, key_id %s", p.KeyID)
}

// keyID compares the key_id that the plugin announces with the key in Vault.
func (e *examination) keyID() outcome {
	const look = "Check above which process owns the socket, and with trousseauctl status which configuration it uses."
	v := e.config.Vault
	id, err := keyid.Parse(e.plugin.KeyID)
	if err != nil {
		return fail(look, "the plugin is not trousseau: %v", err)
	}
	engine, name := strings.Trim(v.Namespace+"/"+v.TransitPath, "/"), v.KeyNames[0]
	if id.Engine != engine || id.Key != name {
		return fail(look, "the plugin uses %s/%s, but the configuration says %s/%s", id.Engine, id.Key, engine, name)
	}
	k := e.readable[name]
	switch {
	case k == nil:
		return skip("the token may not read the key")
	case id.Version != k.Latest:
		return fail("Run doctor again in half a minute, after the plugin has asked Vault again (--probe-interval). Then read its log.", "the plugin uses version %d, but Vault has version %d", id.Version, k.Latest)
	case id.Created != 0 && !k.Created().IsZero() && id.Created != k.Created().Unix():
		return fail(look, "the plugin uses another key of that name: its version %d was created at another time", id.Version)
	}
	return ok("version %d, as in Vault", id.Version)
}

func (e *examination) plainSocket() string {
	socket, _ := endpoint.Parse(e.Socket)
	return socket.Address()
}
