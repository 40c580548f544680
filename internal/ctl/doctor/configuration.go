// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/trousseau-io/trousseau/internal/config"
	"github.com/trousseau-io/trousseau/internal/ctl/text"
	"github.com/trousseau-io/trousseau/internal/ctl/vaultview"
)

// configuration checks config.yaml and the files that it names.
func (e *examination) configuration(ctx context.Context) {
	contents := map[string][]byte{}
	open := func(name string) ([]byte, error) {
		content, err := config.ReadFile(name)
		if err == nil {
			contents[name] = content
		}
		return content, err
	}
	e.check(ctx, "config", e.Config, func(context.Context) outcome {
		data, err := open(e.Config)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return fail("Give its path with --config, or check that Vault Agent runs and may write it. For a pod, run doctor in its container.", "the file does not exist")
		case errors.Is(err, fs.ErrPermission):
			return fail("Run doctor as the user that trousseau runs as.", "this user may not read it")
		case err != nil:
			return fail("Check what is at this path.", "cannot read it: %s", reason(err))
		}
		if e.config, err = config.Parse(data, open); err != nil {
			return fail("Correct each of these where the file comes from: the template of Vault Agent, or the values of the chart.", "%v", err)
		}
		if e.views, err = vaultview.Dial(&e.config.Vault); err != nil {
			e.config = nil
			return fail("Check vaultCACert, clientCert, clientKey and the token.", "%v", err)
		}
		bare := ""
		if e.config.Vault.AcceptBareKeyIDs {
			bare = ", bare key_ids are accepted"
		}
		return ok("%s, credential: %s%s", text.Count(len(e.config.Vault.KeyNames), "key"), e.config.Vault.Credential.Method, bare)
	})
	others := slices.DeleteFunc(slices.Sorted(maps.Keys(contents)), func(name string) bool { return name == e.Config })
	for _, name := range append([]string{e.Config}, others...) {
		e.check(ctx, "file-mode", name, func(context.Context) outcome {
			return mode(name, e.secretIn(contents[name]))
		}, ground("config", e.Config))
	}
}

// secretIn reports whether content holds a secret with which trousseau logs in.
func (e *examination) secretIn(content []byte) bool {
	if e.config == nil {
		return false
	}
	c := e.config.Vault.Credential
	for _, s := range []config.Secret{c.Token, c.SecretID, c.JWT} {
		if !s.IsZero() && bytes.Contains(content, []byte(s.Reveal())) {
			return true
		}
	}
	return bytes.Contains(content, []byte("PRIVATE KEY-----"))
}

const (
	groupReads  fs.FileMode = 0o040
	groupWrites fs.FileMode = 0o020
	otherReads  fs.FileMode = 0o004
	otherWrites fs.FileMode = 0o002
)

// mode judges who may read and who may write a file. Anyone who can write it can
// choose which Vault is asked.
func mode(name string, secret bool) outcome {
	info, err := os.Stat(name)
	if err != nil {
		return fail("Check what is at this path.", "%s", reason(err))
	}
	const private = "Set mode 0600: chmod 0600, and perms = \"0600\" in the agent's template."
	seen, bits := owner(info), info.Mode().Perm()
	if readOnly(name) { // a pod's volume: who mounted it decides who else sees it
		if secret && bits&otherReads != 0 {
			return fail(private, "anyone can read the secret in it: %s", seen)
		}
		return ok("%s, mounted read-only", seen)
	}
	if dir, err := os.Stat(filepath.Dir(name)); err == nil && dir.Mode()&otherWrites != 0 && dir.Mode()&fs.ModeSticky == 0 {
		return fail("Remove that right: chmod o-w on the directory.", "anyone can replace it: its directory has mode %#o", dir.Mode().Perm())
	}
	switch {
	case bits&otherWrites != 0:
		return fail(private, "anyone can write to it: %s", seen)
	case secret && bits&otherReads != 0:
		return fail(private, "anyone can read the secret in it: %s", seen)
	case bits&groupWrites != 0:
		return warn(private, "its group can write to it: %s", seen)
	case secret && bits&groupReads != 0:
		return warn(private, "its group can read the secret in it: %s", seen)
	}
	if uid := ownerOf(info); uid != 0 && uid != os.Geteuid() {
		return warn("Check that this is the user that trousseau runs as.", "its owner is neither root nor the user who runs doctor: %s", seen)
	}
	return ok("%s", seen)
}

// readOnly reports whether a file is below a read-only mount.
func readOnly(name string) bool {
	var fs unix.Statfs_t
	return unix.Statfs(name, &fs) == nil && fs.Flags&unix.ST_RDONLY != 0
}

func owner(info fs.FileInfo) string {
	stat, found := info.Sys().(*syscall.Stat_t)
	if !found {
		return octal(info.Mode())
	}
	return octal(info.Mode()) + " of user " + fmt.Sprint(stat.Uid) + ", group " + fmt.Sprint(stat.Gid)
}

func ownerOf(info fs.FileInfo) int {
	if stat, found := info.Sys().(*syscall.Stat_t); found {
		return int(stat.Uid)
	}
	return 0
}

func octal(mode fs.FileMode) string { return fmt.Sprintf("%#o", mode.Perm()) }
