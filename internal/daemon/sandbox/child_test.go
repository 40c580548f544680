// SPDX-License-Identifier: Apache-2.0

package sandbox_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/trousseau-io/trousseau/internal/daemon/sandbox"
	"github.com/trousseau-io/trousseau/internal/daemon/unixsock"
)

// A restriction cannot be undone, so every sandbox in these tests is in a child process. The child reads commands
// from stdin, one line of JSON each, and answers each with a line on stdout.
const childVariable = "SANDBOX_TEST_CHILD"

func TestMain(m *testing.M) {
	setup, ok := os.LookupEnv(childVariable)
	if !ok {
		m.Run()
		return
	}
	if err := obey(setup); err != nil {
		panic(err)
	}
}

// setup is the initial state of a child.
type setup struct {
	Landlock syscall.Errno // simulated error for queries of Landlock; 0 for none
}

type order struct {
	Verb string
	Args []string
}

type report struct {
	Text   string
	Err    string
	Denied bool // the error is EACCES
}

func obey(encoded string) error {
	var s setup
	if err := json.Unmarshal([]byte(encoded), &s); err != nil {
		return err
	}
	if s.Landlock != 0 {
		if err := hideLandlock(s.Landlock); err != nil {
			return err
		}
	}
	var p puppet
	orders, reports := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var next order
		err := orders.Decode(&next)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		var r report
		r.Text, err = p.do(next.Verb, next.Args)
		if err != nil {
			r.Err, r.Denied = err.Error(), errors.Is(err, syscall.EACCES)
		}
		if err := reports.Encode(r); err != nil {
			return err
		}
	}
}

// puppet is the child's state.
type puppet struct {
	listener *unixsock.Listener
}

func (p *puppet) do(verb string, args []string) (text string, err error) {
	switch verb {
	case "deny-writing":
		var version int
		version, err = sandbox.DenyWriting(args...)
		text = strconv.Itoa(version)
	case "deny-dumps":
		err = sandbox.DenyDumps()

	case "read":
		var data []byte
		data, err = os.ReadFile(args[0])
		text = string(data)
	case "create":
		err = os.WriteFile(args[0], nil, 0o600)
	case "append":
		var f *os.File
		if f, err = os.OpenFile(args[0], os.O_WRONLY|os.O_APPEND, 0); err == nil {
			err = f.Close()
		}
	case "truncate":
		err = os.Truncate(args[0], 0)
	case "remove":
		err = os.Remove(args[0])
	case "rename":
		err = os.Rename(args[0], args[1])
	case "mkdir":
		err = os.Mkdir(args[0], 0o700)
	case "link":
		err = os.Symlink(args[0], args[1])
	case "pipe":
		err = syscall.Mkfifo(args[0], 0o600)
	case "execute":
		var child *os.Process
		if child, err = os.StartProcess(args[0], args, &os.ProcAttr{}); err == nil {
			_, err = child.Wait()
		}
	case "connect":
		var conn net.Conn
		if conn, err = new(net.Dialer).DialContext(context.Background(), "unix", args[0]); err == nil {
			err = conn.Close()
		}
	case "listen":
		var l net.Listener
		if l, err = new(net.ListenConfig).Listen(context.Background(), "unix", args[0]); err == nil {
			err = l.Close()
		}

	case "publish":
		p.listener, err = unixsock.Listen(context.Background(), unixsock.Options{Path: args[0], Takeover: true})
	case "close":
		if p.listener == nil {
			return "", errors.New("nothing is published")
		}
		err = p.listener.Close()

	case "threads":
		err = createOnThreads(args[0])
	case "process":
		text, err = processState()
	default:
		err = fmt.Errorf("unknown order %s", verb)
	}
	return text, err
}

// child is the parent's side.
type child struct {
	t       *testing.T
	pid     int
	orders  *json.Encoder
	reports *json.Decoder
}

// start runs a child as the given user until the end of the test; -1 means the test's own user.
func start(t *testing.T, uid int, s setup) *child {
	t.Helper()
	encoded, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	// With this path, a user without access to the binary's directory can execute it.
	cmd := exec.CommandContext(context.Background(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), childVariable+"="+string(encoded), "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	if uid >= 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
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
	c := &child{t: t, pid: cmd.Process.Pid, orders: json.NewEncoder(stdin), reports: json.NewDecoder(bufio.NewReader(stdout))}
	t.Cleanup(func() {
		_ = stdin.Close() // ends the child
		if err := cmd.Wait(); err != nil {
			t.Errorf("the child ended with %v", err)
		}
	})
	return c
}

func (c *child) try(verb string, args ...string) report {
	c.t.Helper()
	if err := c.orders.Encode(order{verb, args}); err != nil {
		c.t.Fatal(err)
	}
	var r report
	if err := c.reports.Decode(&r); err != nil {
		c.t.Fatalf("the child has died: %v", err)
	}
	return r
}

// do fails the test unless the child is allowed to do it.
func (c *child) do(verb string, args ...string) string {
	c.t.Helper()
	r := c.try(verb, args...)
	if r.Err != "" {
		c.t.Errorf("%s %s: got error %q, want none", verb, strings.Join(args, " "), r.Err)
	}
	return r.Text
}

// denied fails the test unless the child is denied it, and returns the error's text.
func (c *child) denied(verb string, args ...string) string {
	c.t.Helper()
	r := c.try(verb, args...)
	if !r.Denied {
		c.t.Errorf("%s %s: got %q, error %q, want permission denied", verb, strings.Join(args, " "), r.Text, r.Err)
	}
	return r.Err
}

// needLandlock skips a test if the kernel is too old for it.
func needLandlock(t *testing.T) {
	t.Helper()
	if r := start(t, -1, setup{}).try("deny-writing", t.TempDir()); r.Err != "" {
		t.Skip(r.Err)
	}
}

// dir returns a directory for a test's files.
type dir struct {
	t    *testing.T
	path string
}

func (d dir) at(name string) string { return d.path + "/" + name }

func (d dir) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

// write creates a file that is readable by every user, and its parents.
func (d dir) write(name, data string) {
	d.t.Helper()
	if i := strings.LastIndexByte(name, '/'); i > 0 {
		d.must(os.MkdirAll(d.at(name[:i]), 0o755))
	}
	d.must(os.WriteFile(d.at(name), []byte(data), 0o644))
}

// makeDir creates a directory that is accessible to every user.
func makeDir(t *testing.T) dir {
	t.Helper()
	path, err := os.MkdirTemp("", "sandbox")
	d := dir{t, path}
	d.must(err)
	t.Cleanup(func() { _ = os.RemoveAll(path) })
	d.must(os.Chmod(path, 0o755))
	return d
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to start processes as other users")
	}
}

const nobody = 65534

func procFile(pid int, name string) string { return "/proc/" + strconv.Itoa(pid) + "/" + name }
