// SPDX-License-Identifier: Apache-2.0

package unixsock

import (
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
)

// ParseAddr returns the path in addr: "unix:///run/trousseau/kms.sock", the form of the API server's
// EncryptionConfiguration, or an absolute path alone.
//
// Refused, each with its own message: other schemes, relative paths, paths that are not in their shortest form or too
// long to connect to, and abstract sockets. An abstract socket has no owner and no mode, so every process of the
// network namespace could connect. "unix:///@name" is one because k8s.io/kms/pkg/util.ParseEndpoint reads it so.
func ParseAddr(addr string) (string, error) {
	const example = "unix:///run/trousseau/kms.sock"
	const maxPath = 107 // sun_path holds 108 bytes, the last one is NUL (unix(7))
	path, isURL, problem := addr, !strings.HasPrefix(addr, "/"), ""
	scheme, rest, hasScheme := strings.Cut(addr, ":")
	var err error
	if isURL {
		path, err = url.PathUnescape(strings.TrimPrefix(rest, "//"))
	}
	switch {
	case addr == "":
		problem = "is empty; name a path such as " + example
	case strings.HasPrefix(addr, "@") || strings.HasPrefix(path, "@") || strings.HasPrefix(path, "/@"):
		problem = "an abstract socket has no file permissions; name a path such as " + example
	case isURL && !hasScheme:
		problem = "is a relative path; write it from the root, such as " + example
	case isURL && !strings.EqualFold(scheme, "unix"):
		problem = fmt.Sprintf("has scheme %q, only unix is served", scheme)
	case isURL && !strings.HasPrefix(rest, "///"):
		problem = "is not an absolute path; three slashes are needed, as in " + example
	case isURL && strings.ContainsAny(rest, "?#"):
		problem = "has a query or fragment; only a path is understood"
	case err != nil:
		problem = "is not a URL: " + err.Error()
	case strings.ContainsRune(path, 0):
		problem = "the path contains a NUL byte"
	case strings.HasSuffix(path, "/"):
		problem = "the path names a directory; add the socket's file name"
	case filepath.Clean(path) != path:
		problem = "the path is not in its shortest form; write " + filepath.Clean(path)
	case len(path) > maxPath:
		problem = fmt.Sprintf("the path is %d bytes long, a unix socket's path ends at %d; choose a shorter one", len(path), maxPath)
	default:
		return path, nil
	}
	return "", fmt.Errorf("listen address %q: %s", addr, problem)
}
