// SPDX-License-Identifier: Apache-2.0

package unixsock_test

import (
	"strings"
	"testing"

	"github.com/trousseau-io/trousseau/internal/daemon/unixsock"
)

func TestParseAddr(t *testing.T) {
	longest := "/" + strings.Repeat("x", 106)
	const example = "unix:///run/trousseau/kms.sock"
	for _, tt := range []struct{ addr, path, err string }{
		{addr: example, path: "/run/trousseau/kms.sock"},
		{addr: "UNIX:///run/kms.sock", path: "/run/kms.sock"},
		{addr: "/run/trousseau/kms.sock", path: "/run/trousseau/kms.sock"},
		{addr: "unix:///run/a%20b.sock", path: "/run/a b.sock"},
		{addr: "/run/@kms.sock", path: "/run/@kms.sock"},
		{addr: longest, path: longest},
		{addr: "unix://" + longest, path: longest},

		{addr: "", err: "is empty; name a path such as " + example},
		{addr: "unix:///@kms", err: "an abstract socket has no file permissions; name a path such as " + example},
		{addr: "unix://@kms", err: "an abstract socket has no file permissions"},
		{addr: "unix:@kms", err: "an abstract socket has no file permissions"},
		{addr: "@kms", err: "an abstract socket has no file permissions"},
		{addr: "/@kms", err: "an abstract socket has no file permissions"},
		{addr: "run/kms.sock", err: "is a relative path; write it from the root"},
		{addr: "unix:run/kms.sock", err: "is not an absolute path; three slashes are needed"},
		{addr: "unix:/run/kms.sock", err: "is not an absolute path; three slashes are needed"},
		{addr: "unix://run/kms.sock", err: "is not an absolute path; three slashes are needed"},
		{addr: "unix://", err: "is not an absolute path; three slashes are needed"},
		{addr: "tcp://127.0.0.1:80", err: `has scheme "tcp", only unix is served`},
		{addr: "127.0.0.1:80", err: `has scheme "127.0.0.1", only unix is served`},
		{addr: "unix:///run/%zz", err: "is not a URL"},
		{addr: "unix:///%40kms", err: "an abstract socket has no file permissions"},
		{addr: "unix:///run/kms.sock?mode=0600", err: "has a query or fragment"},
		{addr: "unix:///run/kms.sock#x", err: "has a query or fragment"},
		{addr: "unix:///run/%00", err: "contains a NUL byte"},
		{addr: "/run/", err: "names a directory; add the socket's file name"},
		{addr: "/", err: "names a directory"},
		{addr: "/run//kms.sock", err: "not in its shortest form; write /run/kms.sock"},
		{addr: "/run/../kms.sock", err: "not in its shortest form; write /kms.sock"},
		{addr: longest + "x", err: "is 108 bytes long, a unix socket's path ends at 107; choose a shorter one"},
		{addr: "unix://" + longest + "x", err: "is 108 bytes long"},
	} {
		path, err := unixsock.ParseAddr(tt.addr)
		if path != tt.path {
			t.Errorf("ParseAddr(%q) = %q, want %q", tt.addr, path, tt.path)
		}
		switch {
		case tt.err == "" && err != nil:
			t.Errorf("ParseAddr(%q): %v", tt.addr, err)
		case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)):
			t.Errorf("ParseAddr(%q): error %v, want it to contain %q", tt.addr, err, tt.err)
		}
	}
}
