// SPDX-License-Identifier: Apache-2.0

// Package testbed runs Trousseau with real servers: Vault, Vault Agent, etcd and
// kube-apiserver. They listen on free ports of the loopback interface, keep their
// data in one temporary directory and do not need root.
//
// A scenario calls [SetUp] for a [Cluster] that is set up as the documentation describes,
// or assembles its own from the parts. Everything that is started is a [Server]: it
// can be stopped, killed and started again with the same ports and data. [Bed.Await]
// is the only way to wait: for an observed condition, with a time limit. Errors end
// the test (testing.TB.Fatal), so call these methods only from the test's goroutine,
// except those that return an error.
package testbed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/internal/testkit/documented"
	"github.com/trousseau-io/trousseau/internal/testkit/loopback"
)

const (
	// toolsVariable names the directory whose path test/tools/build prints.
	toolsVariable = "TROUSSEAU_E2E"
	// binaryVariable names the trousseau binary, relative to the repository.
	binaryVariable = "TROUSSEAU_BINARY"
	defaultBinary  = "bin/trousseau"
)

// Bed holds one scenario's directory, processes and certificates until the end of
// the test. Then every process is killed, and the directory is removed unless the
// test has failed.
type Bed struct {
	// Dir is the scenario's directory. Its path is short enough for Unix sockets.
	Dir string
	// Binary is the path of the trousseau binary.
	Binary string

	t          testing.TB
	ctx        context.Context // cancelled after the test's own clean-up
	tools      string
	documented map[string]string // files shown in README.md and docs/
	ca         *authority
	launcher   *launcher
	row        Row

	mu      sync.Mutex
	servers []*Server
}

// New starts a scenario; title is its row in the report. It skips the test unless
// the environment names the directory of the real servers.
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
	// Not t.TempDir: with the test's name the path is too long for a socket.
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
		b.row.Took, b.row.Failed, b.row.Skipped = time.Since(began), t.Failed(), t.Skipped()
		report.add(b.row)
		if t.Failed() {
			b.showLogs()
		}
		for _, s := range b.all() {
			s.end()
		}
		cancel()
		if t.Failed() {
			t.Logf("all files are kept in %s", dir)
		} else if err := os.RemoveAll(dir); err != nil {
			t.Errorf("removing the scenario's directory: %v", err)
		}
	})
	b.ca = b.newAuthority()
	return b
}

// Defer runs f at the end of the test, while the servers still run.
func (b *Bed) Defer(f func()) { b.t.Cleanup(f) }

// Observe adds a fact to the scenario's row in the report and to the test's log.
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

// pace is the polling interval of Await.
const pace = 20 * time.Millisecond

// Await polls until met returns nil, and returns how long that took. When the time
// limit has passed, the test ends with met's last error. Met's context is cancelled
// at the time limit.
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
		// An error caused by the end of ctx says less than the previous one.
		if last == nil || ctx.Err() == nil {
			last = err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return 0, fmt.Errorf("timed out after %s waiting for %s: %w", time.Since(began).Round(time.Millisecond), what, last)
		}
	}
}

// Write writes a file with mode 0600 and returns its path. The path is relative to
// Dir unless it is absolute. Missing directories are created.
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

// freeAddr returns an address of the loopback interface. It stays reserved until the
// end of the test, even while its server is stopped.
func (b *Bed) freeAddr() string {
	b.t.Helper()
	port, err := loopback.Reserve("")
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(port.Release)
	return port.Addr
}

// repository returns the parent directory that contains the documentation.
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
			return "", errors.New("not inside Trousseau's repository; run the tests there")
		}
	}
}
