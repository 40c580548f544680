// SPDX-License-Identifier: Apache-2.0

// Package testbed runs Trousseau between real servers: Vault, Vault Agent, etcd
// and kube-apiserver, all on the loopback interface, on free ports, in a
// directory of their own and without root.
//
// A scenario asks for a [Cluster], which [SetUp] sets up as the README says, or
// puts its own together from the parts. Everything that is started is a
// [Server]: it can be stopped, killed and started again on the same ports and
// data. [Bed.Await] is the only way to wait: for an observed condition, with a
// bound. What goes wrong ends the test (testing.TB.Fatal), so these methods are
// for the test's own goroutine, but for those that return an error.
package testbed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/internal/testkit/documented"
	"github.com/trousseau-io/trousseau/internal/testkit/loopback"
)

const (
	// toolsVariable names the directory that test/tools/build prints.
	toolsVariable = "TROUSSEAU_E2E"
	// binaryVariable names the trousseau binary; relative to the repository.
	binaryVariable = "TROUSSEAU_BINARY"
	defaultBinary  = "bin/trousseau"
)

// Bed is one scenario's directory, processes and certificates. Its end is that
// of the test: then every process is killed, and the directory removed unless
// the test has failed.
type Bed struct {
	// Dir is the scenario's directory. Its path is short enough for sockets.
	Dir string
	// Binary is the path of the trousseau binary.
	Binary string

	t          testing.TB
	ctx        context.Context // ends after the test's own clean-up
	tools      string
	documented map[string]string // files that the pages show
	ca         *authority
	launcher   *launcher
	servers    []*Server
	row        Row
}

// New begins a scenario, whose row in the report bears the title. It skips the
// test unless the environment says where the real servers are.
func New(t testing.TB, report *Report, title string) *Bed {
	t.Helper()
	tools := os.Getenv(toolsVariable)
	if tools == "" {
		t.Skipf("%s is not set; run `make e2e`", toolsVariable)
	}
	root, err := repository()
	if err != nil {
		t.Fatal(err)
	}
	binary := os.Getenv(binaryVariable)
	if binary == "" {
		binary = defaultBinary
	}
	if !filepath.IsAbs(binary) {
		binary = filepath.Join(root, binary)
	}
	blocks, err := documented.Files(root)
	if err != nil {
		t.Fatal(err)
	}
	// Not t.TempDir: a test's name makes it too long for a socket's path.
	dir, err := os.MkdirTemp("", "e2e")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	b := &Bed{
		Dir: dir, t: t, ctx: ctx, tools: tools, Binary: binary, documented: blocks,
		launcher: newLauncher(ctx), row: Row{Scenario: title},
	}
	for _, sub := range []string{"log", "home"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	t.Cleanup(func() {
		b.row.Took, b.row.Failed = time.Since(began), t.Failed()
		report.add(b.row)
		if t.Failed() {
			b.showLogs()
		}
		for _, s := range b.servers {
			s.end()
		}
		cancel()
		if t.Failed() {
			t.Logf("everything is left in %s", dir)
		} else if err := os.RemoveAll(dir); err != nil {
			t.Errorf("removing the scenario's directory: %v", err)
		}
	})
	b.ca = b.newAuthority()
	return b
}

// Observe adds a fact to the scenario's row in the report, and to the test's
// log.
func (b *Bed) Observe(format string, args ...any) {
	b.t.Helper()
	fact := fmt.Sprintf(format, args...)
	b.t.Log(fact)
	b.row.Observed = append(b.row.Observed, fact)
}

// Count adds operations and failures to the scenario's row in the report.
func (b *Bed) Count(operations, failures int) {
	b.row.Operations += operations
	b.row.Failures += failures
}

// pace is how often Await looks.
const pace = 20 * time.Millisecond

// Await looks again and again until met returns nil, and returns how long that
// took. When the bound has passed, the test ends with what met said last. Met's
// context ends with the bound.
func (b *Bed) Await(within time.Duration, what string, met func(context.Context) error) time.Duration {
	b.t.Helper()
	took, err := await(b.t.Context(), within, what, met)
	if err != nil {
		b.t.Fatal(err)
	}
	return took
}

func await(ctx context.Context, within time.Duration, what string, met func(context.Context) error) (time.Duration, error) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	ticker := time.NewTicker(pace)
	defer ticker.Stop()
	var last error
	for {
		err := met(ctx)
		if err == nil {
			return time.Since(began), nil
		}
		// What the end of ctx did to the last look tells less than the one before.
		if last == nil || ctx.Err() == nil {
			last = err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return 0, fmt.Errorf("waited %s for %s in vain: %w", time.Since(began).Round(time.Millisecond), what, last)
		}
	}
}

// Write writes a file, for this user alone, whose path is relative to Dir
// unless it is absolute, and returns the path. Directories are made.
func (b *Bed) Write(path, content string) string {
	b.t.Helper()
	if !filepath.IsAbs(path) {
		path = filepath.Join(b.Dir, path)
	}
	err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(content), 0o600))
	if err != nil {
		b.t.Fatal(err)
	}
	return path
}

// freeAddr is an address of the loopback interface, kept for a server that may come
// and go until the test is over.
func (b *Bed) freeAddr() string {
	b.t.Helper()
	port, err := loopback.Reserve("")
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(port.Release)
	return port.Addr
}

// repository is the directory above the test's that the README is in.
func repository() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "cmd", "trousseau")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("the tests do not run inside Trousseau's repository")
		}
	}
}
