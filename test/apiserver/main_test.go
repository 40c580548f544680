// SPDX-License-Identifier: Apache-2.0

package apiserver_test

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/textlogger"

	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
	"github.com/trousseau-io/trousseau/test/apiserver"
	"github.com/trousseau-io/trousseau/test/harness/agent"
	"github.com/trousseau-io/trousseau/test/harness/plugin"
)

const keyName = "trousseau-kms-vault"

// binary is the trousseau binary under test, built by TestMain.
var binary string

func TestMain(m *testing.M) {
	flag.Parse()
	// The tests mostly wait for kube-apiserver's timers and use little CPU time.
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	// Do not print kube-apiserver's logs about unavailable plugins.
	klog.SetLogger(textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(io.Discard))))
	dir, err := os.MkdirTemp("", "trousseau-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "trousseau")
	build := exec.Command("go", "build", "-o", binary, "./cmd/trousseau")
	build.Dir = "../.."
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building trousseau: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// startVault starts a Vault with the transit key.
func startVault(t *testing.T) (*vaulttest.Server, *vaulttest.Key) {
	t.Helper()
	vault := vaulttest.Start(t)
	return vault, vault.CreateKey(keyName)
}

// startPlugin starts trousseau without a config.yaml. At the end its log must not
// contain any of vault's secrets.
func startPlugin(t *testing.T, vault *vaulttest.Server, args ...string) *plugin.Process {
	t.Helper()
	p, err := plugin.Start(context.WithoutCancel(t.Context()), plugin.Options{
		Binary: binary, Dir: shortDir(t), Args: append([]string{"--log-level=debug"}, args...),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
		log, err := p.Log()
		if err != nil {
			t.Error(err)
		}
		if secret, found := vault.Leak(log); found {
			t.Errorf("trousseau's log contains a secret: %q", secret)
		}
		if t.Failed() {
			t.Logf("trousseau's log:\n%s", log)
		}
	})
	return p
}

// configure writes a valid config.yaml with a new token.
func configure(t *testing.T, p *plugin.Process, vault *vaulttest.Server) {
	t.Helper()
	file := agent.Template{KeyNames: []string{keyName}, Address: vault.URL(), Token: vault.KMSToken(keyName)}
	if err := agent.Render(p.ConfigFile(), file.String()); err != nil {
		t.Fatal(err)
	}
}

// startHealthy starts trousseau with a valid config.yaml and returns it once Status
// is ok.
func startHealthy(t *testing.T, vault *vaulttest.Server, args ...string) *plugin.Process {
	t.Helper()
	p := startPlugin(t, vault, args...)
	configure(t, p, vault)
	kms := dial(t, p)
	await(t, 10*time.Second, "Status to be ok", func(ctx context.Context) bool {
		_, err := kms.Status(ctx)
		return err == nil
	})
	return p
}

// load starts an API server. Those of one test share a provider name, because they
// must read each other's objects.
func load(t *testing.T, p *plugin.Process) *apiserver.Server {
	t.Helper()
	s, err := apiserver.Load(t.Context(), apiserver.Options{Socket: p.Socket(), Provider: provider(t), Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// provider returns a name that is unique to the test, because kube-apiserver's test
// hooks are keyed by it.
func provider(t *testing.T) string { return strings.ToLower(t.Name()) }

// clock is kube-apiserver's time for deciding how long the seed may be used for
// writing.
type clock struct{ ahead atomic.Int64 }

// Call setClock before load.
func setClock(t *testing.T) *clock {
	c := new(clock)
	t.Cleanup(kmsv2.SetNowFuncForTests(provider(t), func() time.Time {
		return time.Now().Add(time.Duration(c.ahead.Load()))
	}))
	return c
}

func (c *clock) advance(d time.Duration) { c.ahead.Add(int64(d)) }

func await(t *testing.T, within time.Duration, what string, met func(context.Context) bool) {
	t.Helper()
	if err := plugin.Await(t.Context(), within, what, func(ctx context.Context) (bool, error) { return met(ctx), nil }); err != nil {
		t.Fatal(err)
	}
}

// shortDir creates a temporary directory whose path is short enough for a socket:
// unix(7) allows 108 bytes.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "t-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}
