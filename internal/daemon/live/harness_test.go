// SPDX-License-Identifier: Apache-2.0

package live_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/trousseau-io/trousseau/internal/config"
	"github.com/trousseau-io/trousseau/internal/daemon/live"
	"github.com/trousseau-io/trousseau/internal/daemon/watch"
	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

// Time constants. Every test here runs in a synctest bubble.
const (
	requestTimeout = 2 * time.Second
	probeInterval  = 30 * time.Second
	grace          = 5 * time.Minute
)

// bench is a running KEK with a fake Vault, without a network, in a synctest bubble.
type bench struct {
	t *testing.T
	*live.KEK
	vault    *vaulttest.Server
	key      *vaulttest.Key
	token    string // of the last loaded configuration
	contents chan watch.Content[*config.Config]
	looks    atomic.Int32
	registry *prometheus.Registry
	logs     *observer.ObservedLogs
	log      blockableLog
	hosts    hosts
	opts     live.Options
	stop     func() // ends the KEK
}

// hosts is a network of in-process Vaults, by host name.
type hosts map[string]http.RoundTripper

func (h hosts) RoundTrip(req *http.Request) (*http.Response, error) {
	rt, ok := h[req.URL.Hostname()]
	if !ok {
		return nil, fmt.Errorf("no such host")
	}
	return rt.RoundTrip(req)
}

// blockableLog is a log that blocks while it is told to, like a pipe that nobody reads.
type blockableLog struct{ blocked atomic.Bool }

func (l *blockableLog) Write(p []byte) (int, error) {
	for l.blocked.Load() {
		time.Sleep(time.Second)
	}
	return len(p), nil
}

func (l *blockableLog) Sync() error { return nil }

// failing is a network on which every request fails.
type failing struct{ err error }

func (f failing) RoundTrip(*http.Request) (*http.Response, error) { return nil, f.err }

// withToken is a Vault that accepts any token.
type withToken struct {
	http.RoundTripper
	token string
}

func (w withToken) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Header.Set("X-Vault-Token", w.token)
	return w.RoundTripper.RoundTrip(req)
}

// run starts a bench in a bubble, with key "kek" in a Vault at http://vault:8200.
func run(t *testing.T, test func(*bench), adjust ...func(*live.Options)) {
	synctest.Test(t, func(t *testing.T) {
		b := &bench{
			t:        t,
			vault:    inProcess(t),
			contents: make(chan watch.Content[*config.Config], 1),
			registry: prometheus.NewRegistry(),
			hosts:    make(hosts),
		}
		b.hosts["vault"] = b.vault.RoundTripper()
		b.key = b.vault.CreateKey("kek")
		core, logs := observer.New(zapcore.DebugLevel)
		b.logs = logs
		opts := live.Options{
			Contents:       b.contents,
			Reread:         func() { b.looks.Add(1) },
			RequestTimeout: requestTimeout,
			ProbeInterval:  probeInterval,
			OutageGrace:    grace,
			Registerer:     b.registry,
			Logger:         zap.New(zapcore.NewTee(core, zapcore.NewCore(zapcore.NewJSONEncoder(zapcore.EncoderConfig{}), &b.log, zapcore.InfoLevel))),
			Transport:      b.hosts,
		}
		for _, a := range adjust {
			a(&opts)
		}
		b.opts = opts
		b.start()
		defer func() {
			b.vault.ClearFaults()
			b.log.blocked.Store(false)
			b.stop()
			b.checkNoSecretLogged()
		}()
		test(b)
	})
}

// start runs a new KEK; stop ends it.
func (b *bench) start() {
	b.KEK = live.New(b.opts)
	ctx, cancel := context.WithCancel(b.t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		b.Run(ctx)
	}()
	b.stop = func() {
		cancel()
		<-ended
	}
}

// restart starts again without a configuration or state, like a new process.
func (b *bench) restart() {
	b.stop()
	b.registry = prometheus.NewRegistry()
	b.opts.Registerer = b.registry
	b.start()
}

func inProcess(t *testing.T) *vaulttest.Server {
	t.Helper()
	v, err := vaulttest.New(vaulttest.Options{InProcess: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	return v
}

// settings are the parts of a configuration that vary between tests.
type settings struct {
	keys    []string // default kek
	address string   // default http://vault:8200
	token   string   // default a new token with the minimal policy
	extra   string   // additional lines under vault
}

// load delivers a configuration and waits until the bench is idle.
func (b *bench) load(s settings) (token string) {
	if s.keys == nil {
		s.keys = []string{"kek"}
	}
	if s.address == "" {
		s.address = "http://vault:8200"
	}
	if s.token == "" {
		s.token = b.vault.KMSToken("kek", "next")
	}
	b.token = s.token
	b.deliver(fmt.Sprintf("provider: vault\nvault:\n  keynames: [%s]\n  address: %s\n  token: %s\n%s",
		strings.Join(s.keys, ", "), s.address, s.token, s.extra))
	return s.token
}

// deliver delivers the content of a configuration file.
func (b *bench) deliver(text string) {
	sum := sha256.Sum256([]byte(text))
	cfg, err := config.Parse([]byte(text), nil)
	b.contents <- watch.Content[*config.Config]{
		Path: "/etc/trousseau/config.yaml", Digest: hex.EncodeToString(sum[:]), Value: cfg, Err: err,
	}
	synctest.Wait()
}

// after lets time pass.
func (b *bench) after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// request bounds a request as the KMS server does.
func (b *bench) request() (context.Context, context.CancelFunc) {
	return context.WithTimeout(b.t.Context(), requestTimeout)
}

// roundTrip encrypts and decrypts, and returns the key_id that was used.
func (b *bench) roundTrip() string {
	b.t.Helper()
	ctx, cancel := b.request()
	defer cancel()
	wrapped, err := b.Encrypt(ctx, []byte("seed"))
	if err != nil {
		b.t.Fatalf("Encrypt: %v", err)
	}
	plaintext, err := b.Decrypt(ctx, wrapped)
	if err != nil || string(plaintext) != "seed" {
		b.t.Fatalf("Decrypt: %q, %v", plaintext, err)
	}
	return wrapped.KeyID
}

// wantStatus checks Status: a key_id, or a text in its error.
func (b *bench) wantStatus(keyID, problem string) {
	b.t.Helper()
	got, err := b.Status()
	switch {
	case problem == "" && (err != nil || got != keyID):
		b.t.Errorf("Status = %q, %v; want %q", got, err, keyID)
	case problem != "" && (err == nil || !strings.Contains(err.Error(), problem)):
		b.t.Errorf("Status = %q, %v; want an error with %q", got, err, problem)
	case problem != "" && got != "":
		b.t.Errorf("Status gave key_id %q along with an error", got)
	}
}

// wantMetrics compares the named metrics with the text format.
func (b *bench) wantMetrics(text string, names ...string) {
	b.t.Helper()
	if err := testutil.GatherAndCompare(b.registry, strings.NewReader(text), names...); err != nil {
		b.t.Error(err)
	}
}

// metric returns the value of a metric without labels.
func (b *bench) metric(name string) float64 {
	b.t.Helper()
	families, err := b.registry.Gather()
	if err != nil {
		b.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name && len(f.GetMetric()) == 1 {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	b.t.Fatalf("there is no metric %s", name)
	return 0
}

// logged returns how often a message was logged, and the error of the last one.
func (b *bench) logged(message string) (times int, problem string) {
	entries := b.logs.FilterMessage(message).All()
	for _, e := range entries {
		problem, _ = e.ContextMap()["error"].(string)
	}
	return len(entries), problem
}

func (b *bench) checkNoSecretLogged() {
	b.t.Helper()
	for _, e := range b.logs.All() {
		line, err := zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()).EncodeEntry(e.Entry, e.Context)
		if err != nil {
			b.t.Fatal(err)
		}
		if secret, found := b.vault.Leak(line.String()); found {
			b.t.Errorf("a secret (%.4s…) is in the log: %s", secret, line)
		}
	}
}
