// SPDX-License-Identifier: Apache-2.0

package unixsock

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
)

// maxPath is the longest path, in bytes, that a client can connect to: sun_path holds 108 of them (unix(7)),
// and the last one is the terminating NUL.
const maxPath = 107

// ParseAddr returns the path that addr names: "unix:///run/trousseau/kms.sock", the form of the API server's
// EncryptionConfiguration, or the absolute path alone.
//
// Refused, each with its own message: other schemes, relative paths, paths not in their shortest form, paths that
// no client could connect to because they are too long, and abstract sockets. An abstract socket has no owner and
// no mode, so it would be open to every process of the network namespace. "unix:///@name" counts as one because
// k8s.io/kms/pkg/util.ParseEndpoint reads it so.
func ParseAddr(addr string) (path string, err error) {
	path, err = pathOf(addr)
	if err == nil {
		err = checkPath(path)
	}
	if err != nil {
		return "", fmt.Errorf("listen address %q: %w", addr, err)
	}
	return path, nil
}

var errAbstract = errors.New("an abstract socket has no file permissions; name a path such as unix:///run/trousseau/kms.sock")

func pathOf(addr string) (string, error) {
	switch {
	case addr == "":
		return "", errors.New("is empty; name a path such as unix:///run/trousseau/kms.sock")
	case strings.HasPrefix(addr, "/"):
		return addr, nil
	case strings.HasPrefix(addr, "@"):
		return "", errAbstract
	}

	u, err := url.Parse(addr)
	switch {
	case err != nil:
		return "", fmt.Errorf("is not a URL: %w", errors.Unwrap(err))
	case u.Scheme == "":
		return "", errors.New("is a relative path; write it from the root, such as unix:///run/trousseau/kms.sock")
	case u.Scheme != "unix":
		return "", fmt.Errorf("has scheme %q, only unix is served", u.Scheme)
	case strings.HasPrefix(u.Opaque, "@") || strings.HasPrefix(addr, "unix://@"):
		return "", errAbstract
	case u.Host != "" || u.User != nil || u.Opaque != "" || !strings.HasPrefix(addr[len("unix:"):], "//"):
		return "", errors.New("is not an absolute path; three slashes are needed, as in unix:///run/trousseau/kms.sock")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return "", errors.New("has a query or fragment; only a path is understood")
	}
	return u.Path, nil
}

func checkPath(path string) error {
	switch {
	case strings.HasPrefix(path, "/@"):
		return errAbstract
	case strings.ContainsRune(path, 0):
		return errors.New("the path contains a NUL byte")
	case !filepath.IsAbs(path):
		return errors.New("the path is not absolute")
	case strings.HasSuffix(path, "/"):
		return errors.New("the path names a directory; add the socket's file name")
	case filepath.Clean(path) != path:
		return fmt.Errorf("the path is not in its shortest form; write %s", filepath.Clean(path))
	case len(path) > maxPath:
		return fmt.Errorf("the path is %d bytes long, a unix socket's path ends at %d; choose a shorter one", len(path), maxPath)
	}
	return nil
}
