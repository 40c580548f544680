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
	"github.com/trousseau-io/trousseau/internal/keyid"
)

// socket looks at the plugin's socket, and asks the plugin as kube-apiserver
// does.
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

// listening finds out who listens. The kernel notes that when the process calls
// listen(2) (SO_PEERCRED, unix(7)).
func listening(ctx context.Context, path string) outcome {
	const start = "Start trousseau, or give its --listen-addr with --socket; journalctl -u trousseau says why it has ended."
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fail(start, "there is no such socket")
	case errors.Is(err, fs.ErrPermission):
		return fail("Run this as the user that kube-apiserver runs as.", "it may not be looked at: %s", reason(err))
	case err != nil:
		return fail(start, "%s", reason(err))
	case info.Mode()&fs.ModeSocket == 0:
		return fail("Move it away, and start trousseau again.", "it is no socket: %s", info.Mode().Type())
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return fail(start, "nobody listens: the process that made it has ended")
	case errors.Is(err, fs.ErrPermission):
		return fail("Run this as the user that kube-apiserver runs as; --socket-mode and --socket-group say who may connect.", "it may not be connected to: %s, %s", reason(err), owner(info))
	case err != nil:
		return fail(start, "%s", reason(err))
	}
	defer conn.Close()
	peer, err := peerOf(conn)
	if err != nil {
		return ok("somebody listens")
	}
	if peer.Pid == 0 {
		return ok("a process of user %d listens, in another container", peer.Uid)
	}
	return ok("process %d (%s) of user %d listens", peer.Pid, program(peer.Pid), peer.Uid)
}

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

// reachable judges who may connect: whoever may can have every seed decrypted.
func reachable(path string) outcome {
	info, err := os.Stat(path)
	if err != nil {
		return fail("Run this again.", "%s", reason(err))
	}
	dir := filepath.Dir(path)
	if parent, err := os.Stat(dir); err == nil && parent.Mode()&otherWrites != 0 && parent.Mode()&fs.ModeSticky == 0 {
		return fail("Use a directory of trousseau's own below /run, with 0750.", "everybody can put another socket in its place: %s is %s", dir, octal(parent.Mode()))
	}
	if info.Mode()&otherWrites == 0 {
		return ok("%s", owner(info))
	}
	for up := dir; ; up = filepath.Dir(up) {
		if parent, err := os.Stat(up); err == nil && parent.Mode()&otherSearches == 0 {
			return ok("%s, in %s with %s", owner(info), up, octal(parent.Mode()))
		}
		if up == "/" || up == "." {
			return warn("Start trousseau with --socket-mode=0600, or 0660 and --socket-group.", "everybody can connect, and have every seed decrypted: %s", owner(info))
		}
	}
}

func (e *examination) status(ctx context.Context) outcome {
	endpoint, err := fleet.ParseEndpoint(e.Socket)
	if err != nil {
		return fail("Correct --socket.", "%v", err)
	}
	p := endpoint.Ask(ctx)
	switch {
	case p.Error != "":
		return fail("See its log and its /readyz; with --socket-allow-uids, run this as one of those.", "no Status: %s", p.Error)
	case p.Healthz != "ok":
		return fail("See its log and its /readyz.", "it says of its health: %s", p.Healthz)
	}
	e.plugin = &p
	return ok("ok, key_id %s", p.KeyID)
}

// keyID compares what the plugin announces with what Vault has.
func (e *examination) keyID() outcome {
	const look = "See which process has the socket and which configuration it has read: trousseauctl status."
	v := e.config.Vault
	id, err := keyid.Parse(e.plugin.KeyID)
	if err != nil {
		return fail(look, "that plugin is not trousseau: %v", err)
	}
	engine, name := strings.Trim(v.Namespace+"/"+v.TransitPath, "/"), v.KeyNames[0]
	if id.Engine != engine || id.Key != name {
		return fail(look, "the plugin uses %s/%s, and the configuration says %s/%s", id.Engine, id.Key, engine, name)
	}
	latest, known := e.latest[name]
	switch {
	case !known:
		return skip("the key may not be read")
	case id.Version != latest.number:
		return fail("Run this again in half a minute, when the plugin has asked Vault again (--probe-interval); then see its log.", "the plugin uses version %d, and Vault has version %d", id.Version, latest.number)
	case id.Created != 0 && latest.created != 0 && id.Created != latest.created:
		return fail(look, "the plugin uses another key of that name: its version %d is of another time", id.Version)
	}
	return ok("version %d, as in Vault", id.Version)
}

func (e *examination) plainSocket() string { return strings.TrimPrefix(e.Socket, "unix://") }
