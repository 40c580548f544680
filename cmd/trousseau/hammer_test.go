// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	kmsapi "k8s.io/kms/apis/v2"

	"github.com/trousseau-io/trousseau/internal/keyid"
	"github.com/trousseau-io/trousseau/internal/testkit/loopback"
	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
	"github.com/trousseau-io/trousseau/internal/vault"
)

// TestReloadHammer encrypts and decrypts through the real socket while the
// configuration is rewritten in every supported way, valid and invalid. The old
// token is revoked as soon as a valid configuration is in place. There are so many more
// callers than calls that batches are under way at every swap. No request may fail,
// no answer may mix two generations, and no goroutine or file may leak.
func TestReloadHammer(t *testing.T) {
	const rewrites, callers = 120, 32
	v := vaulttest.Start(t)
	keys := map[string]*vaulttest.Key{"a": v.CreateKey("a"), "b": v.CreateKey("b")}
	d := startDaemon(t, "--probe-interval=200ms", "--config-poll-interval=1s", "--request-timeout=10s", "--max-vault-requests=2")
	f := &configFile{t: t, dir: d.dir, vault: v}
	f.good(writeByRename)
	d.awaitMetric(t, `(?m)^trousseau_generation 1$`)

	if _, err := d.client.Status(t.Context(), &kmsapi.StatusRequest{}); err != nil {
		t.Fatal(err)
	}
	before := measure(v)
	var load hammerLoad
	stop := load.start(t, d.client, callers)

	ways := []func(*testing.T, string, string){writeByRename, writeInPlace, writeTruncatedFirst, writeBySymlinkSwap, writeAfterDelete}
	random := rand.New(rand.NewPCG(1, 2))
	for i := range rewrites {
		if random.IntN(3) == 0 {
			f.bad(ways[random.IntN(len(ways))], random.IntN(4))
		}
		f.good(ways[random.IntN(len(ways))])
		if i%40 == 39 {
			keys[string("ab"[random.IntN(2)])].Rotate()
		}
		// The next rewrite may come during the adoption of this one.
		load.await(t, random.IntN(40))
	}
	// At the end the last content is in use.
	f.good(writeByRename)
	d.awaitMetric(t, `(?m)^trousseau_config_last_reload_successful 1$`)
	load.await(t, 100)
	requests, failures := stop()
	if len(failures) > 0 {
		t.Errorf("%d of %d requests failed, the first: %s", len(failures), requests, failures[0])
	}
	calls := d.sum(t, `trousseau_vault_batch_items_count\{.*\}`)
	items := d.sum(t, `trousseau_vault_batch_items_sum\{.*\}`)
	t.Logf("%d requests during %d rewrites, %d generations, %d items in %d calls", requests, rewrites, d.generation(t), items, calls)
	if items < 2*calls {
		t.Errorf("only %d items shared %d calls", items, calls)
	}
	if got := d.generation(t); got < rewrites/4 {
		t.Errorf("only %d generations came of %d good rewrites", got, rewrites)
	}

	// Replaced clients are closed one request timeout later.
	var after footprint
	for end := time.Now().Add(2 * patience); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if after = measure(v); after.within(before) {
			break
		}
	}
	if !after.within(before) {
		t.Errorf("before the hammer: %+v, after it: %+v", before, after)
	}
	t.Logf("before: %+v, after: %+v", before, after)
	for what, text := range map[string]string{"metrics": d.metrics(), "log": d.log()} {
		if secret, found := v.Leak(text); found {
			t.Errorf("a secret (%.4s…) is in the %s", secret, what)
		}
	}
}

// process is the whole program in the test's own process, so that its goroutines and
// files can be counted.
type process struct {
	dir    string // of config.yaml
	client kmsapi.KeyManagementServiceClient
	ops    string
	end    context.CancelFunc
	ended  chan error
	mu     sync.Mutex
	stderr bytes.Buffer
}

func (d *process) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stderr.Write(p)
}

func (d *process) log() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stderr.String()
}

func startDaemon(t *testing.T, flags ...string) *process {
	t.Helper()
	port, err := loopback.Reserve("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(port.Release)
	sockets, err := os.MkdirTemp("", "kms")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(sockets) })
	socket := filepath.Join(sockets, "kms.sock")
	ctx, cancel := context.WithCancel(context.Background())
	d := &process{dir: t.TempDir(), ops: "http://" + port.Addr, end: cancel, ended: make(chan error, 1)}
	args := append([]string{
		"--config-file-path=" + filepath.Join(d.dir, "config.yaml"),
		"--listen-addr=unix://" + socket, "--ops-addr=" + port.Addr, "--log-level=debug",
		"--sandbox=false", // it would apply to the test process
	}, flags...)
	go func() { d.ended <- run(ctx, args, io.Discard, d) }()
	t.Cleanup(func() { d.stop(t) })
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	d.client = kmsapi.NewKeyManagementServiceClient(conn)
	return d
}

func (d *process) stop(t *testing.T) {
	t.Helper()
	d.end()
	select {
	case err, running := <-d.ended:
		if running && err != nil {
			t.Errorf("the daemon ended with %v", err)
		}
		if running {
			close(d.ended)
		}
	case <-time.After(patience):
		t.Error("the daemon does not stop")
	}
}

func (d *process) metrics() string {
	resp, err := http.Get(d.ops + "/metrics")
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return string(body)
}

func (d *process) awaitMetric(t *testing.T, pattern string) {
	t.Helper()
	want := regexp.MustCompile(pattern)
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if want.MatchString(d.metrics()) {
			return
		}
	}
	t.Fatalf("no %s in:\n%s\nlog:\n%s", pattern, d.metrics(), d.log())
}

func (d *process) generation(t *testing.T) int {
	t.Helper()
	m := regexp.MustCompile(`(?m)^trousseau_generation (\d+)$`).FindStringSubmatch(d.metrics())
	if m == nil {
		t.Fatal("no generation in the metrics")
	}
	n, _ := strconv.Atoi(m[1])
	return n
}

// sum adds up the values of the metrics that match.
func (d *process) sum(t *testing.T, pattern string) (sum int) {
	t.Helper()
	for _, m := range regexp.MustCompile(`(?m)^`+pattern+` (\S+)$`).FindAllStringSubmatch(d.metrics(), -1) {
		value, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += int(value)
	}
	return sum
}

// configFile rewrites config.yaml.
type configFile struct {
	t     *testing.T
	dir   string
	vault *vaulttest.Server
	token string // of the last good content
	count int
}

// good writes a configuration with a new token and the keys in another order, then
// revokes the old token.
func (f *configFile) good(write func(*testing.T, string, string)) {
	f.count++
	keys := []string{"a", "b"}
	if f.count%2 == 0 {
		keys = []string{"b", "a"}
	}
	old := f.token
	f.token = f.vault.KMSToken("a", "b")
	write(f.t, f.dir, fmt.Sprintf("\n--- \nprovider: vault\nvault:\n  keynames:\n  - %s \n  - %s \n  address: %s \n  token: %s \n",
		keys[0], keys[1], f.vault.URL(), f.token))
	if old != "" {
		f.vault.Revoke(old)
	}
}

// bad writes a configuration that must not be adopted.
func (f *configFile) bad(write func(*testing.T, string, string), kind int) {
	write(f.t, f.dir, []string{
		"vault: [", "", "\x00\x01\x02",
		fmt.Sprintf("provider: vault\nvault:\n  keynames: [c]\n  address: %s\n  token: %s\n", f.vault.URL(), f.token),
	}[kind])
}

func writeByRename(t *testing.T, dir, text string) {
	tmp := filepath.Join(dir, "1234567")
	check(t, os.WriteFile(tmp, []byte(text), 0o600))
	check(t, os.Rename(tmp, filepath.Join(dir, "config.yaml")))
}

func writeInPlace(t *testing.T, dir, text string) {
	check(t, os.WriteFile(filepath.Join(dir, "config.yaml"), []byte(text), 0o600))
}

func writeTruncatedFirst(t *testing.T, dir, text string) {
	writeInPlace(t, dir, text[:len(text)/2])
	writeInPlace(t, dir, text)
}

func writeAfterDelete(t *testing.T, dir, text string) {
	check(t, os.Remove(filepath.Join(dir, "config.yaml")))
	writeInPlace(t, dir, text)
}

// writeBySymlinkSwap replaces files as kubelet does for ConfigMaps and Secrets.
func writeBySymlinkSwap(t *testing.T, dir, text string) {
	data, err := os.MkdirTemp(dir, "..data_")
	check(t, err)
	check(t, os.WriteFile(filepath.Join(data, "config.yaml"), []byte(text), 0o600))
	old, _ := os.Readlink(filepath.Join(dir, "..data"))
	check(t, os.Symlink(filepath.Base(data), filepath.Join(dir, "..data_tmp")))
	check(t, os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
	if target, _ := os.Readlink(filepath.Join(dir, "config.yaml")); target != "..data/config.yaml" {
		link := filepath.Join(dir, "config.yaml_tmp")
		check(t, os.Symlink("..data/config.yaml", link))
		check(t, os.Rename(link, filepath.Join(dir, "config.yaml")))
	}
	if old != "" {
		check(t, os.RemoveAll(filepath.Join(dir, old)))
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// hammerLoad is the load during the rewrites.
type hammerLoad struct {
	done     atomic.Int64
	mu       sync.Mutex
	failures []string
}

func (l *hammerLoad) fail(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failures = append(l.failures, fmt.Sprintf(format, args...))
}

// start starts callers that encrypt, and decrypt both new and older ciphertexts,
// until stop.
func (l *hammerLoad) start(t *testing.T, client kmsapi.KeyManagementServiceClient, callers int) (stop func() (int64, []string)) {
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for i := range callers {
		all.Go(func() {
			var first *kmsapi.EncryptResponse
			for n := 0; ctx.Err() == nil; n++ {
				plaintext := fmt.Appendf(nil, "seed %d of caller %d", n, i)
				got := l.encrypt(client, plaintext)
				if got == nil {
					continue
				}
				l.decrypt(client, got, plaintext)
				if first == nil {
					first = got
				}
				l.decrypt(client, first, fmt.Appendf(nil, "seed 0 of caller %d", i))
			}
		})
	}
	return func() (int64, []string) {
		cancel()
		all.Wait()
		return l.done.Load(), l.failures
	}
}

func (l *hammerLoad) encrypt(client kmsapi.KeyManagementServiceClient, plaintext []byte) *kmsapi.EncryptResponse {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	resp, err := client.Encrypt(ctx, &kmsapi.EncryptRequest{Uid: "hammer", Plaintext: plaintext})
	l.done.Add(1)
	if err != nil {
		l.fail("Encrypt: %v", err)
		return nil
	}
	id, err := keyid.Parse(resp.GetKeyId())
	version, ok := vault.CiphertextVersion(resp.GetCiphertext())
	if err != nil || !ok || version != id.Version {
		l.fail("Encrypt mixed generations: key_id %s with a ciphertext of version %d", resp.GetKeyId(), version)
	}
	return resp
}

// decrypt fails if the key_id names a key that did not encrypt.
func (l *hammerLoad) decrypt(client kmsapi.KeyManagementServiceClient, wrapped *kmsapi.EncryptResponse, want []byte) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	resp, err := client.Decrypt(ctx, &kmsapi.DecryptRequest{Uid: "hammer", Ciphertext: wrapped.GetCiphertext(), KeyId: wrapped.GetKeyId()})
	l.done.Add(1)
	if err != nil || !bytes.Equal(resp.GetPlaintext(), want) {
		l.fail("Decrypt under %s: %v", wrapped.GetKeyId(), err)
	}
}

// await waits until n more requests have ended.
func (l *hammerLoad) await(t *testing.T, n int) {
	t.Helper()
	for end, target := time.Now().Add(patience), l.done.Load()+int64(n); l.done.Load() < target; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("requests are blocked")
		}
	}
}

// footprint holds the figures that must not grow.
type footprint struct{ goroutines, files, connections int }

func measure(v *vaulttest.Server) footprint {
	files, _ := os.ReadDir("/proc/self/fd")
	return footprint{runtime.NumGoroutine(), len(files), v.Connections()}
}

// within tolerates what one client's pool holds: a connection for each call at the
// same time and for the prober, each a file and up to three goroutines on both sides.
func (f footprint) within(before footprint) bool {
	const pool = 3
	return f.goroutines <= before.goroutines+6*pool && f.files <= before.files+2*pool && f.connections <= before.connections+pool
}
