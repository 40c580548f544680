// SPDX-License-Identifier: Apache-2.0

package testbed

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2"
	kmsservice "k8s.io/kms/pkg/service"

	"github.com/trousseau-io/trousseau/test/harness/pages"
)

// Trousseau is one process of the trousseau binary.
type Trousseau struct {
	*Server
	// Socket is the path of the KMS socket.
	Socket string
	// KMS is kube-apiserver's own client for the socket, created at the first start.
	// Each call is one call of the plugin, with the timeout in
	// EncryptionConfiguration. It is safe for concurrent use and survives restarts of
	// the process.
	KMS kmsservice.Service
	// OpsAddr is the address of the ops endpoints.
	OpsAddr string

	bed *Bed
	ops *pages.Client
}

// kmsTimeout is the timeout in the documented EncryptionConfiguration.
const kmsTimeout = 3 * time.Second

// NewTrousseau prepares a trousseau with additional flags. The caller starts it. Two
// may share one socket, for takeovers.
func (b *Bed) NewTrousseau(name, configFile, socket string, flags ...string) *Trousseau {
	b.t.Helper()
	return b.newTrousseau(b.freeAddr(), name, configFile, socket, flags...)
}

// newTrousseau is NewTrousseau with host:port for the ops endpoints.
func (b *Bed) newTrousseau(ops, name, configFile, socket string, flags ...string) *Trousseau {
	return &Trousseau{
		Server: b.newServer(name, b.Binary, append([]string{
			"--config-file-path=" + configFile,
			"--listen-addr=unix://" + socket,
			"--ops-addr=" + ops,
		}, flags...)...),
		Socket: socket, bed: b, ops: pages.New(ops), OpsAddr: ops,
	}
}

// Start starts the process. The first start waits for the socket to appear, because
// a client that does not find it retries only after a pause.
func (p *Trousseau) Start() {
	p.bed.t.Helper()
	p.Server.Start()
	if p.KMS != nil {
		return
	}
	p.bed.Await(10*time.Second, p.Name+"'s socket", func(context.Context) error {
		_, err := os.Stat(p.Socket)
		return err
	})
	var err error
	if p.KMS, err = kmsv2.NewGRPCService(p.bed.ctx, "unix://"+p.Socket, p.Name, kmsTimeout); err != nil {
		p.bed.t.Fatal(err)
	}
}

// Ready returns nil if /readyz answers 200, and otherwise an error with its body.
func (p *Trousseau) Ready(ctx context.Context) error {
	code, page, err := p.ops.Ready(ctx)
	if err != nil {
		return err
	}
	if code != http.StatusOK {
		return fmt.Errorf("%s: /readyz: %d: %s", p.Name, code, page)
	}
	return nil
}

// NotReady is a condition for [Bed.Await]: /readyz answers 503 and contains why.
func (p *Trousseau) NotReady(why string) func(context.Context) error {
	return func(ctx context.Context) error {
		code, page, err := p.ops.Ready(ctx)
		if err == nil && (code != http.StatusServiceUnavailable || !strings.Contains(page, why)) {
			err = fmt.Errorf("%s: /readyz: %d: %s; want 503 and %q", p.Name, code, page, why)
		}
		return err
	}
}

// AwaitReady waits until /readyz answers 200, and returns how long that took.
func (p *Trousseau) AwaitReady() time.Duration {
	p.bed.t.Helper()
	return p.bed.Await(time.Minute, p.Name+"'s /readyz", p.Ready)
}

// Metric sums the samples of a metric that have all of the labels, given as
// alternating names and values. found reports whether there is one.
func (p *Trousseau) Metric(ctx context.Context, name string, labels ...string) (sum float64, found bool, err error) {
	page, err := p.ops.Metrics(ctx)
	if err == nil {
		sum, found, err = page.Sum(name, labels...)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", p.Name, err)
	}
	return sum, found, err
}

// MetricIs is a condition for [Bed.Await]: the metric exists and has the value.
func (p *Trousseau) MetricIs(want float64, name string, labels ...string) func(context.Context) error {
	return func(ctx context.Context) error {
		got, found, err := p.Metric(ctx, name, labels...)
		switch {
		case err != nil:
			return err
		case !found:
			return fmt.Errorf("%s has no metric %s %v", p.Name, name, labels)
		case got != want:
			return fmt.Errorf("%s: %s %v is %v, want %v", p.Name, name, labels, got, want)
		}
		return nil
	}
}

// MustMetric returns the current value of a gauge or counter; 0 if it does not
// exist.
func (p *Trousseau) MustMetric(name string, labels ...string) float64 {
	p.bed.t.Helper()
	value, _, err := p.Metric(p.bed.t.Context(), name, labels...)
	if err != nil {
		p.bed.t.Fatal(err)
	}
	return value
}

// KeyID returns the key_id in the Status response.
func (p *Trousseau) KeyID() string {
	p.bed.t.Helper()
	status, err := p.KMS.Status(p.bed.t.Context())
	if err != nil {
		p.bed.t.Fatalf("asking %s for its Status: %v", p.Name, err)
	}
	return status.KeyID
}

// RoundTrip wraps and unwraps a seed of the length that kube-apiserver uses.
func (p *Trousseau) RoundTrip(ctx context.Context) error {
	seed := make([]byte, 32)
	rand.Read(seed)
	sealed, err := p.KMS.Encrypt(ctx, string(uuid.NewUUID()), seed)
	if err != nil {
		return err
	}
	got, err := p.KMS.Decrypt(ctx, string(uuid.NewUUID()), &kmsservice.DecryptRequest{
		Ciphertext: sealed.Ciphertext, KeyID: sealed.KeyID, Annotations: sealed.Annotations,
	})
	if err != nil {
		return err
	}
	if !bytes.Equal(got, seed) {
		return errors.New("decrypted seed differs from the encrypted one")
	}
	return nil
}
