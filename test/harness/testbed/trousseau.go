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

// Trousseau is the trousseau binary, as one process.
type Trousseau struct {
	*Server
	// Socket is the path of the KMS socket.
	Socket string
	// KMS is kube-apiserver's own client for it, made at the first start: each
	// call is one call of the plugin, with EncryptionConfiguration's timeout. It
	// is safe for concurrent use, and outlives restarts of the process.
	KMS kmsservice.Service

	bed *Bed
	ops *pages.Client
}

// kmsTimeout is the README's EncryptionConfiguration's.
const kmsTimeout = 3 * time.Second

// NewTrousseau prepares a trousseau with further flags, for the caller to start.
// Two may have one socket, for takeovers.
func (b *Bed) NewTrousseau(name, configFile, socket string, flags ...string) *Trousseau {
	b.t.Helper()
	return b.newTrousseau(b.freeAddr(), name, configFile, socket, flags...)
}

// newTrousseau is NewTrousseau with host:port of the operator's pages.
func (b *Bed) newTrousseau(ops, name, configFile, socket string, flags ...string) *Trousseau {
	return &Trousseau{
		Server: b.newServer(name, b.Binary, append([]string{
			"--config-file-path=" + configFile,
			"--listen-addr=unix://" + socket,
			"--ops-addr=" + ops,
		}, flags...)...),
		Socket: socket, bed: b, ops: pages.New(ops),
	}
}

// Start executes the process, and at the first start waits for the socket to be
// there: a client that does not find it comes back only after its pause.
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

// Ready returns nil if /readyz says so, and else what it says.
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

// NotReady is met when /readyz says that it is not, and why; see [Bed.Await].
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

// Metric sums up the samples of a metric that have all the labels, given as
// name and value in turn; found tells whether there is one.
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

// MetricIs is met when a metric is there and has the value; see [Bed.Await].
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

// MustMetric is a gauge's or counter's value now; 0 if it is not there.
func (p *Trousseau) MustMetric(name string, labels ...string) float64 {
	p.bed.t.Helper()
	value, _, err := p.Metric(p.bed.t.Context(), name, labels...)
	if err != nil {
		p.bed.t.Fatal(err)
	}
	return value
}

// KeyID is what Status announces.
func (p *Trousseau) KeyID() string {
	p.bed.t.Helper()
	status, err := p.KMS.Status(p.bed.t.Context())
	if err != nil {
		p.bed.t.Fatalf("asking %s for its Status: %v", p.Name, err)
	}
	return status.KeyID
}

// RoundTrip wraps a seed, as long as kube-apiserver's are, and unwraps it.
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
		return errors.New("what was decrypted is not what was encrypted")
	}
	return nil
}
