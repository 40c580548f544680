// SPDX-License-Identifier: Apache-2.0

package unixsock_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/trousseau-io/trousseau/internal/daemon/unixsock"
)

// A role runs the test binary as another process. It gets the socket path, prints its result as one line on
// stdout, and runs until its stdin ends.
const roleVariable = "UNIXSOCK_TEST_ROLE"

var roles = map[string]func(path string) error{
	"listen": func(path string) error {
		l, err := unixsock.Listen(context.Background(), unixsock.Options{Path: path, Group: os.Getenv("UNIXSOCK_TEST_GROUP")})
		if err != nil {
			return err
		}
		go accept(l, "child")
		return nil
	},
	// passed uses a socket passed by the test in systemd's way, and checks the remaining environment.
	"passed": func(path string) error {
		l, err := listenPassed(path)
		if err != nil {
			return err
		}
		for _, v := range os.Environ() {
			if strings.HasPrefix(v, "LISTEN_") {
				return errors.New("left in the environment: " + v)
			}
		}
		go accept(l, "child")
		return nil
	},
	"passed-closed": func(path string) error {
		l, err := listenPassed(path)
		if err != nil {
			return err
		}
		return l.Close()
	},
	// passed-lost removes the path of a passed socket if it is told to, and prints what Published then says.
	"passed-lost": func(path string) error {
		l, err := listenPassed(path)
		if err != nil {
			return err
		}
		go accept(l, "child")
		if os.Getenv("UNIXSOCK_TEST_LOSE") == "yes" {
			if err := os.Remove(path); err != nil {
				return err
			}
		}
		for end := time.Now().Add(10 * time.Second); l.Published() == nil && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		return l.Published()
	},
	// dial connects to the own socket, which its mode forbids.
	"dial": func(path string) error {
		l, err := unixsock.Listen(context.Background(), unixsock.Options{Path: path, Mode: 0o060})
		if err != nil {
			return err
		}
		if _, err = l.Dial(context.Background()); errors.Is(err, fs.ErrPermission) {
			return fs.ErrPermission
		}
		return err
	},
	// greet prints the server's first line, or that there was none.
	"greet": func(path string) error {
		conn, err := net.Dial("unix", path)
		if err != nil {
			return err
		}
		line, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil {
			return errUnheard
		}
		return errors.New(strings.TrimSuffix(line, "\n"))
	},
	// drop connects and then becomes another user.
	"drop": func(path string) error {
		if _, err := net.Dial("unix", path); err != nil {
			return err
		}
		return syscall.Setuid(nobody)
	},
	// replace repeatedly takes the socket over from itself, with umask 0.
	"replace": func(path string) error {
		syscall.Umask(0)
		var before *unixsock.Listener
		for range 300 {
			l, err := unixsock.Listen(context.Background(), unixsock.Options{Path: path, Mode: 0o640, Takeover: true})
			if err != nil {
				return err
			}
			if before != nil {
				if err := before.Close(); err != nil {
					return err
				}
			}
			before = l
		}
		return nil
	},
}

func listenPassed(path string) (*unixsock.Listener, error) {
	if err := os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid())); err != nil {
		return nil, err
	}
	o := unixsock.Options{Path: path, Mode: 0o600}
	if os.Getenv("UNIXSOCK_TEST_ALLOW") == "others" {
		o.AllowUIDs = []uint32{uint32(os.Geteuid()) + 1}
	}
	return unixsock.Listen(context.Background(), o)
}

func TestMain(m *testing.M) {
	role, ok := roles[os.Getenv(roleVariable)]
	if !ok {
		goleak.VerifyTestMain(m)
		return
	}
	if err := role(os.Args[1]); err != nil {
		fmt.Println(err)
	} else {
		fmt.Println("ok")
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
}

var errUnheard = errors.New("closed without a word")

// child is another process in a role.
type child struct {
	cmd   *exec.Cmd
	stdin io.Closer
	lines *bufio.Scanner
}

func start(t *testing.T, role, path string, change ...func(*exec.Cmd)) *child {
	t.Helper()
	// Not os.Executable: the child's user may have no access to the test binary's directory.
	cmd := exec.Command("/proc/self/exe", path)
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	cmd.Stderr = os.Stderr
	for _, f := range change {
		f(cmd)
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &child{cmd: cmd, stdin: stdin, lines: bufio.NewScanner(stdout)}
	t.Cleanup(c.kill)
	return c
}

// said waits for the result line of the role.
func (c *child) said(t *testing.T) string {
	t.Helper()
	if !c.lines.Scan() {
		t.Fatalf("the child ended without a word: %v", c.lines.Err())
	}
	return c.lines.Text()
}

func (c *child) pid() int { return c.cmd.Process.Pid }

// kill ends the child with SIGKILL, and waits until the kernel has closed its sockets.
func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
	_ = c.stdin.Close()
}

func socketPath(t *testing.T) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "kms.sock")
}

// listen returns a listener that greets every connection with name and then echoes.
func listen(t *testing.T, o unixsock.Options, name string) *unixsock.Listener {
	t.Helper()
	l, err := unixsock.Listen(t.Context(), o)
	if err != nil {
		t.Fatalf("Listen(%s): %v", o.Path, err)
	}
	go accept(l, name)
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// wantInUse checks that Listen without Takeover does not replace the socket of the process with this PID.
func wantInUse(t *testing.T, path string, pid int) {
	t.Helper()
	l, err := unixsock.Listen(t.Context(), unixsock.Options{Path: path})
	if err == nil {
		_ = l.Close()
	}
	if inUse, ok := errors.AsType[*unixsock.InUseError](err); !ok || inUse.Path != path || inUse.PID != pid {
		t.Fatalf("Listen: %v, want an InUseError with pid %d", err, pid)
	}
}

func accept(l net.Listener, name string) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			if _, err := fmt.Fprintln(conn, name); err == nil {
				_, _ = io.Copy(conn, conn)
			}
		}()
	}
}

// talk is one client connection.
type talk struct {
	net.Conn
	lines *bufio.Reader
}

func dial(t *testing.T, path string) talk {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return talk{conn, bufio.NewReader(conn)}
}

func (c talk) line(t *testing.T) string {
	t.Helper()
	s, err := c.lines.ReadString('\n')
	if err != nil {
		t.Fatalf("reading from the server: %v", err)
	}
	return strings.TrimSuffix(s, "\n")
}

// echoes checks that the server keeps answering on this connection, at least once and for the given time.
func (c talk) echoes(t *testing.T, d time.Duration) {
	t.Helper()
	for end := time.Now().Add(d); ; {
		if _, err := fmt.Fprintln(c, "still there?"); err != nil {
			t.Fatalf("writing to the server: %v", err)
		}
		if got := c.line(t); got != "still there?" {
			t.Fatalf("the server answers %q, want an echo", got)
		}
		if !time.Now().Before(end) {
			return
		}
	}
}

// wantServer checks which server a new connection to path reaches.
func wantServer(t *testing.T, path, want string) {
	t.Helper()
	conn := dial(t, path)
	defer conn.Close()
	if got := conn.line(t); got != want {
		t.Errorf("a new connection to %s reaches %q, want %q", filepath.Base(path), got, want)
	}
}

// wantOnly checks that the directory of path has only the named entries and no temporary ones.
func wantOnly(t *testing.T, path string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the directory holds %q, want %q", got, want)
	}
}

// eventually polls an observed condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("timed out waiting: %s", what)
		}
	}
}
