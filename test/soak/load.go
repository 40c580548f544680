// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	kmsapi "k8s.io/kms/apis/v2"

	"github.com/trousseau-io/trousseau/test/apiserver"
	harness "github.com/trousseau-io/trousseau/test/harness/load"
)

const (
	// callers is the number of callers, each with its own connection, and pace the
	// interval of each. One round is three requests.
	callers = 3
	pace    = 250 * time.Millisecond
	// statusPace is the interval of additional Status requests.
	statusPace = 100 * time.Millisecond
	// sweepers is the number of callers that decrypt everything in a calm.
	sweepers = 4
)

// load makes requests as kube-apiserver does and checks the answers. Its methods may
// be called concurrently.
type load struct {
	socket  string
	starts  func() int // returns how many processes have been started
	peace   *peace
	pulse   *pulse
	ledger  *ledger
	secrets *secrets
	// evidence judges failures of Status.
	evidence *evidence
	fail     func(error) // called with a violated invariant

	mu    sync.Mutex
	tally tally

	workers *harness.Workers // nil before start
	running sync.WaitGroup   // goroutines started by workers
	conns   []*grpc.ClientConn
}

// tally counts the requests so far.
type tally struct {
	requests map[string]int // by method
	failed   map[codes.Code]int
	starved  int // failed without a fault, for lack of CPU time
	unproven int // key_ids whose process was gone before it could be checked
}

func newTally() tally {
	return tally{requests: map[string]int{}, failed: map[codes.Code]int{}}
}

// dial connects to the socket. It retries without kube-apiserver's pauses: those are
// gRPC's and can exceed our time limits.
func (l *load) dial() (kmsapi.KeyManagementServiceClient, error) {
	conn, err := grpc.NewClient("unix://"+l.socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1, MaxDelay: 50 * time.Millisecond},
			MinConnectTimeout: time.Second,
		}))
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns = append(l.conns, conn)
	return kmsapi.NewKeyManagementServiceClient(conn), nil
}

// start starts the load.
func (l *load) start() error {
	ctx := context.Background()
	l.workers = harness.NewWorkers()
	for range callers {
		client, err := l.dial()
		if err != nil {
			return err
		}
		l.workers.Go(pace, func() { l.round(ctx, client) })
	}
	client, err := l.dial()
	if err != nil {
		return err
	}
	// The caller of status checks the result.
	l.workers.Go(statusPace, func() { _ = l.status(ctx, client) })
	return nil
}

// halt stops the load after the running requests.
func (l *load) halt() {
	if l.workers != nil {
		l.workers.Stop()
	}
	l.running.Wait()
}

// close halts the load and closes its connections.
func (l *load) close() {
	l.halt()
	for _, conn := range l.conns {
		_ = conn.Close()
	}
}

// round encrypts a new plaintext, decrypts it, and decrypts an old one.
func (l *load) round(ctx context.Context, client kmsapi.KeyManagementServiceClient) {
	if w, err := l.encrypt(ctx, client); err == nil {
		_ = l.decrypt(ctx, client, w)
	}
	if w, ok := l.ledger.any(); ok {
		_ = l.decrypt(ctx, client, w)
	}
}

// encrypt encrypts a new plaintext and records it.
func (l *load) encrypt(ctx context.Context, client kmsapi.KeyManagementServiceClient) (wrapped, error) {
	// Text, so that it is visible in a log, with the 32 bytes of a seed.
	w := wrapped{plaintext: fmt.Append(nil, rand.Text(), " seed.")}
	l.secrets.add(string(w.plaintext))
	starts := l.starts()
	err := l.call(ctx, "Encrypt", func(ctx context.Context) (err error) {
		w.response, err = client.Encrypt(ctx, &kmsapi.EncryptRequest{Uid: "soak", Plaintext: w.plaintext})
		return err
	})
	if err != nil {
		return w, err
	}
	l.ledger.add(w)
	if keyID := w.response.GetKeyId(); !l.ledger.wasReported(keyID) {
		l.running.Go(func() { l.awaitReport(context.WithoutCancel(ctx), client, keyID, starts) })
	}
	return w, nil
}

// awaitReport checks that Status soon reports a key_id that Encrypt has used first.
// If the process that used it is gone, this cannot be checked.
func (l *load) awaitReport(ctx context.Context, client kmsapi.KeyManagementServiceClient, keyID string, starts int) {
	const rightAfter = time.Second
	answered := false
	for end := time.Now().Add(rightAfter); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		answered = l.status(ctx, client) == nil || answered
		if l.ledger.wasReported(keyID) {
			return
		}
	}
	if answered && l.starts() == starts {
		l.fail(violatedf("Encrypt used key_id %s, which Status has not reported within %s", keyID, rightAfter))
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tally.unproven++
}

// decrypt decrypts a ciphertext and compares the result with the plaintext.
func (l *load) decrypt(ctx context.Context, client kmsapi.KeyManagementServiceClient, w wrapped) error {
	var got []byte
	err := l.call(ctx, "Decrypt", func(ctx context.Context) error {
		resp, err := client.Decrypt(ctx, &kmsapi.DecryptRequest{
			Uid: "soak", Ciphertext: w.response.GetCiphertext(), KeyId: w.response.GetKeyId(), Annotations: w.response.GetAnnotations(),
		})
		got = resp.GetPlaintext()
		return err
	})
	if err == nil && !bytes.Equal(got, w.plaintext) {
		l.fail(violatedf("Decrypt under %s returned a different plaintext", w.response.GetKeyId()))
	}
	return err
}

// status requests the key_id and records it.
func (l *load) status(ctx context.Context, client kmsapi.KeyManagementServiceClient) error {
	return l.call(ctx, "Status", func(ctx context.Context) error {
		resp, err := client.Status(ctx, &kmsapi.StatusRequest{})
		if err != nil {
			return err
		}
		if resp.GetHealthz() != "ok" || resp.GetVersion() != "v2" {
			return fmt.Errorf("Status says healthz %q, version %q", resp.GetHealthz(), resp.GetVersion())
		}
		l.ledger.report(resp.GetKeyId())
		return nil
	})
}

// call makes a request with kube-apiserver's deadline, counts it and checks how it
// fails.
func (l *load) call(ctx context.Context, method string, request func(context.Context) error) error {
	bounded, cancel := context.WithTimeout(ctx, apiserver.Timeout)
	defer cancel()
	before, began := l.peace.number(), time.Now()
	err := request(bounded)
	undisturbed := before != 0 && before == l.peace.number()
	// The machine was busy for more than half of its time.
	starved := l.pulse.lost(began) > time.Since(began)/2
	code := status.Code(err)

	l.mu.Lock()
	l.tally.requests[method]++
	if err != nil {
		l.tally.failed[code]++
	}
	if err != nil && undisturbed && starved {
		l.tally.starved++
	}
	l.mu.Unlock()
	if err == nil || ctx.Err() != nil {
		return err
	}
	if secret, found := l.secrets.find([]byte(err.Error())); found {
		l.fail(violatedf("an error of %s contains a secret (%.4s…)", method, secret))
	}
	if undisturbed && !starved {
		l.fail(violatedf("%s failed with only a harmless fault active: %v", method, err))
	}
	if method == "Status" && !starved {
		l.evidence.statusFailed(began, err)
	}
	if !blamesVault(code) {
		l.fail(violatedf("%s failed with a code that no fault explains: %v", method, err))
	}
	return err
}

// blamesVault reports whether an error means that Vault is unavailable at the
// moment. Other codes say that the key, the ciphertext or the plugin is broken, and
// make an operator act.
func blamesVault(code codes.Code) bool {
	switch code {
	case codes.Unavailable, codes.DeadlineExceeded, codes.ResourceExhausted, codes.PermissionDenied:
		return true
	}
	return false
}

// sweep decrypts everything ever encrypted. Failures caused by a busy machine are
// ignored in call, so each ciphertext has several tries.
func (l *load) sweep(ctx context.Context, client kmsapi.KeyManagementServiceClient) (n int, err error) {
	const tries = 5
	all := l.ledger.all()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(sweepers)
	for _, w := range all {
		if ctx.Err() != nil {
			break
		}
		group.Go(func() (err error) {
			for range tries {
				if err = l.decrypt(ctx, client, w); err == nil || ctx.Err() != nil {
					return err
				}
			}
			return violatedf("data encrypted under %s cannot be decrypted: %v", w.response.GetKeyId(), err)
		})
	}
	return len(all), group.Wait()
}

// soFar returns the counts so far.
func (l *load) soFar() tally {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.tally
	t.requests, t.failed = maps.Clone(t.requests), maps.Clone(t.failed)
	return t
}
