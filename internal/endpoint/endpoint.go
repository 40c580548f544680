// SPDX-License-Identifier: Apache-2.0

// Package endpoint reads the address of a unix socket, as kube-apiserver's EncryptionConfiguration and all flags write
// it: unix:///run/trousseau/kms.sock, or the path alone.
//
// It accepts less than kube-apiserver, which takes run in unix://run/kms.sock for a host and ignores it. What it
// accepts, kube-apiserver reads as the same socket; a test compares both.
package endpoint

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"syscall"
	"unicode"
)

// Endpoint is a unix socket. Two are equal if they are the same address; the zero Endpoint is none.
type Endpoint struct{ address string }

// Address is the socket for net.Dial: an absolute path in its shortest form, or @ and the name of an abstract socket.
func (e Endpoint) Address() string { return e.address }

// Abstract reports whether the socket is abstract: it has no file, and so no owner and no mode.
func (e Endpoint) Abstract() bool { return strings.HasPrefix(e.address, "@") }

// String is the URL for an EncryptionConfiguration: printable ASCII without quotes and blanks.
func (e Endpoint) String() string {
	path := e.address
	if e.Abstract() {
		path = "/" + path
	}
	return (&url.URL{Scheme: "unix", Path: path}).String()
}

// Parse reads an endpoint. An abstract socket is unix:///@name, as in k8s.io/kms/pkg/util.ParseEndpoint.
func Parse(text string) (Endpoint, error) {
	const maxPath = 107 // sun_path holds 108 bytes, the last one is NUL (unix(7))
	path, problem := text, ""
	u, err := url.Parse(text)
	isURL := !strings.HasPrefix(text, "/")
	if isURL && err == nil {
		path = u.Path
	}
	unprintable := func(r rune) bool { return !unicode.IsPrint(r) }
	abstract := strings.HasPrefix(path, "/@")
	switch {
	case text == "":
		problem = "is empty; name a path such as " + example
	case strings.ContainsFunc(text, unprintable), strings.ContainsFunc(path, unprintable):
		problem = "has a character that cannot be printed; name a path such as " + example
	case isURL && !strings.Contains(text, ":"):
		problem = "is a relative path; write it from the root, such as " + example
	case isURL && !strings.EqualFold(scheme(text), "unix"):
		problem = fmt.Sprintf("has scheme %q, only unix is served; name a path such as %s", scheme(text), example)
	case isURL && !strings.HasPrefix(text[len("unix:"):], "///"):
		problem = "is not an absolute path; three slashes are needed, as in " + example
	case isURL && strings.ContainsAny(text, "?#"):
		problem = "has a query or fragment; only a path is understood, such as " + example
	case isURL && err != nil:
		problem = "is not a URL: " + errors.Unwrap(err).Error() + "; name a path such as " + example
	case strings.HasSuffix(path, "/"), path == "/@":
		problem = "names a directory; add the socket's file name, as in " + example
	case filepath.Clean(path) != path:
		problem = "is not in its shortest form; write " + filepath.Clean(path)
	case len(path) > maxPath:
		problem = fmt.Sprintf("is %d bytes long, a unix socket's path ends at %d; choose a shorter one", len(path), maxPath)
	case abstract:
		return Endpoint{path[1:]}, nil
	default:
		return Endpoint{path}, nil
	}
	return Endpoint{}, fmt.Errorf("%q %s", text, problem)
}

const example = "unix:///run/trousseau/kms.sock"

func scheme(text string) string {
	before, _, _ := strings.Cut(text, ":")
	return before
}

// ParsePath is Parse for a socket to create. It refuses an abstract one, which every process of the network namespace
// could connect to.
func ParsePath(text string) (string, error) {
	e, err := Parse(text)
	if err == nil && e.Abstract() {
		err = fmt.Errorf("%q is an abstract socket, which has no file permissions; name a path such as %s", text, example)
	}
	if err != nil {
		return "", err
	}
	return e.address, nil
}

// Dial connects. Its error says what to do.
func (e Endpoint) Dial(ctx context.Context) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", e.address)
	var errno syscall.Errno
	if err == nil || !errors.As(err, &errno) {
		return conn, err
	}
	var advice string
	switch errno {
	case syscall.ENOENT:
		advice = "start the plugin on this host, or give the endpoint that is in EncryptionConfiguration"
	case syscall.ECONNREFUSED:
		advice = "no process listens on the socket; start the plugin again"
	case syscall.EACCES, syscall.EPERM:
		advice = "run this command as the user that kube-apiserver runs as"
	default:
		advice = "check the socket"
	}
	return nil, fmt.Errorf("connecting to %s: %w; %s", e, errno, advice)
}
