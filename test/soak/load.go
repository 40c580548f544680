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
	// callers is how many make requests all the time, each on a connection of
	// its own; pace is how often each goes round. A round is three requests.
	callers = 3
	pace    = 250 * time.Millisecond
	// statusPace is how often Status is asked, besides.
	statusPace = 100 * time.Millisecond
	// sweepers is how many callers decrypt everything in a calm.
	sweepers = 4
)

// load makes requests as kube-apiserver does, and judges the answers. Its
// methods may be called concurrently.
type load struct {
	socket  string
	starts  func() int // how many processes have been started
	peace   *peace
	pulse   *pulse
	ledger  *ledger
	secrets *secrets
	fail    func(error) // told of a violated invariant

	mu    sync.Mutex
	tally tally

	workers *harness.Workers // nil before start
	running sync.WaitGroup   // what workers have begun beside themselves
	conns   []*grpc.ClientConn
}

// tally is what has happened so far.
type tally struct {
	requests map[string]int // by method
	failed   map[codes.Code]int
	starved  int // failed in peace, for want of a processor
	unproven int // key_ids that nobody could be asked about any more
}

func newTally() tally {
	return tally{requests: map[string]int{}, failed: map[codes.Code]int{}}
}

// dial connects to the socket, again and again without the pauses that
// kube-apiserver makes: they are gRPC's and can be longer than our patience.
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

// start begins.
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
	// What comes of it is judged where it is asked.
	l.workers.Go(statusPace, func() { _ = l.status(ctx, client) })
	return nil
}

// halt ends the load after the requests under way.
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

// round encrypts something new, decrypts it, and decrypts something old.
func (l *load) round(ctx context.Context, client kmsapi.KeyManagementServiceClient) {
	if w, err := l.encrypt(ctx, client); err == nil {
		_ = l.decrypt(ctx, client, w)
	}
	if w, ok := l.ledger.any(); ok {
		_ = l.decrypt(ctx, client, w)
	}
}

// encrypt has something new encrypted and keeps it.
func (l *load) encrypt(ctx context.Context, client kmsapi.KeyManagementServiceClient) (wrapped, error) {
	// Text, because it would be seen in any log, and of a seed's 32 bytes.
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

// awaitReport has Status report a key_id that Encrypt has used before Status was
// asked. It must do so right after. If the process that used it is gone, nobody
// can tell.
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
		l.fail(violatedf("Encrypt used the key_id %s, which Status has not reported within %s", keyID, rightAfter))
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tally.unproven++
}

// decrypt has something decrypted, which must give what it was made of.
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
		l.fail(violatedf("Decrypt under %s returned something else than was encrypted", w.response.GetKeyId()))
	}
	return err
}

// status asks for the key_id and keeps it.
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

// call makes a request with kube-apiserver's deadline, counts it and judges how
// it fails.
func (l *load) call(ctx context.Context, method string, request func(context.Context) error) error {
	bounded, cancel := context.WithTimeout(ctx, apiserver.Timeout)
	defer cancel()
	before, began := l.peace.number(), time.Now()
	err := request(bounded)
	undisturbed := before != 0 && before == l.peace.number()
	// More than half of its time, the machine did not let it go on.
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
		l.fail(violatedf("an error of %s holds a secret (%.4s…)", method, secret))
	}
	if undisturbed && !starved {
		l.fail(violatedf("%s failed, although nothing but a harmless fault was there: %v", method, err))
	}
	if !blamesVault(code) {
		l.fail(violatedf("%s failed in a way that no fault here explains: %v", method, err))
	}
	return err
}

// blamesVault reports whether a failure says that something cannot be had right
// now. The other codes say that the key, the ciphertext or the plugin is broken,
// on which an operator would act.
func blamesVault(code codes.Code) bool {
	switch code {
	case codes.Unavailable, codes.DeadlineExceeded, codes.ResourceExhausted, codes.PermissionDenied:
		return true
	}
	return false
}

// sweep decrypts everything that was ever encrypted. A failure that the machine
// explains has been forgiven in call, so each has some tries.
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
			return violatedf("what was encrypted under %s cannot be decrypted: %v", w.response.GetKeyId(), err)
		})
	}
	return len(all), group.Wait()
}

// soFar returns what has happened so far.
func (l *load) soFar() tally {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.tally
	t.requests, t.failed = maps.Clone(t.requests), maps.Clone(t.failed)
	return t
}
