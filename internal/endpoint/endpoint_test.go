// SPDX-License-Identifier: Apache-2.0

package endpoint_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unicode"

	"k8s.io/kms/pkg/util"

	"github.com/trousseau-io/trousseau/internal/endpoint"
)

const example = "unix:///run/trousseau/kms.sock"

func TestParse(t *testing.T) {
	longest := "/" + strings.Repeat("x", 106)
	for _, tt := range []struct{ text, address, url, err string }{
		{text: example, address: "/run/trousseau/kms.sock"},
		{text: "UNIX:///run/kms.sock", address: "/run/kms.sock", url: "unix:///run/kms.sock"},
		{text: "/run/trousseau/kms.sock", address: "/run/trousseau/kms.sock", url: example},
		{text: "unix:///run/a%20b.sock", address: "/run/a b.sock"},
		{text: `/run/a"b'c.sock`, address: `/run/a"b'c.sock`, url: "unix:///run/a%22b%27c.sock"},
		{text: "/run/@kms.sock", address: "/run/@kms.sock", url: "unix:///run/@kms.sock"},
		{text: longest, address: longest, url: "unix://" + longest},
		{text: "unix://" + longest, address: longest},
		{text: "unix:///@kms", address: "@kms"},
		{text: "unix:///%40kms", address: "@kms", url: "unix:///@kms"},

		{text: "", err: "is empty; name a path such as " + example},
		{text: "@kms", err: "is a relative path; write it from the root"},
		{text: "unix://@kms", err: "is not an absolute path; three slashes are needed"},
		{text: "run/kms.sock", err: "is a relative path; write it from the root"},
		{text: "unix:run/kms.sock", err: "is not an absolute path; three slashes are needed"},
		{text: "unix:/run/kms.sock", err: "is not an absolute path; three slashes are needed"},
		{text: "unix://run/kms.sock", err: "is not an absolute path; three slashes are needed"},
		{text: "unix://", err: "is not an absolute path; three slashes are needed"},
		{text: "tcp://127.0.0.1:80", err: `has scheme "tcp", only unix is served`},
		{text: "127.0.0.1:80", err: `has scheme "127.0.0.1", only unix is served`},
		{text: "unix:///run/%zz", err: `is not a URL: invalid URL escape "%zz"`},
		{text: "unix:///run/kms.sock?mode=0600", err: "has a query or fragment"},
		{text: "unix:///run/kms.sock#x", err: "has a query or fragment"},
		{text: "unix:///run/%00", err: "has a character that cannot be printed"},
		{text: "/run/kms\n.sock", err: `"/run/kms\n.sock" has a character that cannot be printed`},
		{text: "/run/\x1b[2J.sock", err: "has a character that cannot be printed"},
		{text: "unix:///run/\u202ekms", err: "has a character that cannot be printed"},
		{text: "/run/", err: "names a directory; add the socket's file name"},
		{text: "/", err: "names a directory"},
		{text: "unix:///@", err: "names a directory"},
		{text: "/run//kms.sock", err: "is not in its shortest form; write /run/kms.sock"},
		{text: "/run/../kms.sock", err: "is not in its shortest form; write /kms.sock"},
		{text: longest + "x", err: "is 108 bytes long, a unix socket's path ends at 107; choose a shorter one"},
		{text: "unix://" + longest + "x", err: "is 108 bytes long"},
	} {
		e, err := endpoint.Parse(tt.text)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("Parse(%q): error %v, want it to contain %q", tt.text, err, tt.err)
			}
			continue
		}
		if tt.url == "" {
			tt.url = tt.text
		}
		if err != nil || e.Address() != tt.address || e.String() != tt.url {
			t.Errorf("Parse(%q) = %s at %q, %v; want %s at %q", tt.text, e, e.Address(), err, tt.url, tt.address)
		}
	}
}

func TestParsePath(t *testing.T) {
	if path, err := endpoint.ParsePath(example); err != nil || path != "/run/trousseau/kms.sock" {
		t.Errorf("got %q, %v", path, err)
	}
	for text, want := range map[string]string{
		"unix:///@kms": `"unix:///@kms" is an abstract socket, which has no file permissions; name a path such as ` + example,
		"/@kms":        "is an abstract socket",
		"/run/":        "names a directory",
	} {
		if path, err := endpoint.ParsePath(text); path != "" || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %q, %v; want %q", text, path, err, want)
		}
	}
}

func TestDial(t *testing.T) {
	dir, err := os.MkdirTemp("", "kms") // the path of t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "a b.sock")
	e, err := endpoint.Parse(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Dial(t.Context()); !errors.Is(err, syscall.ENOENT) || err.Error() != "connecting to "+e.String()+": no such file or directory; start the plugin on this host, or give the endpoint that is in EncryptionConfiguration" {
		t.Errorf("nothing there: got %v", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := e.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	l.SetUnlinkOnClose(false)
	l.Close()
	if _, err := e.Dial(t.Context()); !errors.Is(err, syscall.ECONNREFUSED) || !strings.Contains(err.Error(), "no process listens on the socket") {
		t.Errorf("nobody listens: got %v", err)
	}
}

// FuzzParse compares each endpoint with how kube-apiserver reads it.
func FuzzParse(f *testing.F) {
	for _, text := range []string{example, "/run/a\"b", "unix:///@a", "unix:///%40a", "unix://h/p", "unix:///a%2fb", "/\x00", "/a:b", "x", "unix:///a#b", "unix:"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		e, err := endpoint.Parse(text)
		if err != nil {
			if strings.ContainsFunc(err.Error(), unicode.IsControl) {
				t.Errorf("the error %q cannot be printed", err)
			}
			return
		}
		if address, err := util.ParseEndpoint(e.String()); err != nil || address != e.Address() {
			t.Errorf("%q is %q; kube-apiserver reads %q, %v", text, e.Address(), address, err)
		}
		if !strings.HasPrefix(text, "/") {
			if address, err := util.ParseEndpoint(text); err != nil || address != e.Address() {
				t.Errorf("%q is %q; kube-apiserver reads %q, %v", text, e.Address(), address, err)
			}
		}
		if again, err := endpoint.Parse(e.String()); err != nil || again != e {
			t.Errorf("%q became %s, and then %s, %v", text, e, again, err)
		}
		if strings.ContainsFunc(e.String(), func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("\"'`\\", r) }) {
			t.Errorf("%q became %q", text, e)
		}
	})
}
