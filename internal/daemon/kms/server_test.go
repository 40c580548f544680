// SPDX-License-Identifier: Apache-2.0

package kms_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	kmsv1 "k8s.io/kms/apis/v1beta1"
	kmsapi "k8s.io/kms/apis/v2"

	"github.com/trousseau-io/trousseau/internal/daemon/kms"
	"github.com/trousseau-io/trousseau/internal/fault"
	"github.com/trousseau-io/trousseau/internal/keyid"
	"github.com/trousseau-io/trousseau/internal/seed"
)

const keyID = "transit/key/v3@1790000000"

// kek is a KEK whose methods can be replaced one by one.
type kek struct {
	status  func() (string, error)
	encrypt func(context.Context, []byte) ([]byte, string, error)
	decrypt func(context.Context, string, []byte) ([]byte, error)
	// notes are the annotations that Encrypt adds; noted are those that Decrypt
	// received.
	notes map[string][]byte
	noted atomic.Pointer[map[string][]byte]
}

func (k *kek) Status() (string, error) { return k.status() }

func (k *kek) Encrypt(ctx context.Context, plaintext []byte) (seed.Wrapped, error) {
	ciphertext, keyID, err := k.encrypt(ctx, plaintext)
	return seed.Wrapped{KeyID: keyID, Ciphertext: ciphertext, Annotations: k.notes}, err
}

func (k *kek) Decrypt(ctx context.Context, w seed.Wrapped) ([]byte, error) {
	k.noted.Store(&w.Annotations)
	return k.decrypt(ctx, w.KeyID, w.Ciphertext)
}

// working is a KEK that reverses bytes.
func working() *kek {
	reverse := func(b []byte) []byte {
		out := make([]byte, len(b))
		for i, c := range b {
			out[len(b)-1-i] = c
		}
		return out
	}
	return &kek{
		status:  func() (string, error) { return keyID, nil },
		encrypt: func(_ context.Context, p []byte) ([]byte, string, error) { return reverse(p), keyID, nil },
		decrypt: func(_ context.Context, _ string, c []byte) ([]byte, error) { return reverse(c), nil },
	}
}

type harness struct {
	kmsapi.KeyManagementServiceClient
	server   *kms.Server
	registry *prometheus.Registry
	logs     *observer.ObservedLogs
	served   chan error
	path     string
	v1       kmsv1.KeyManagementServiceClient
}

// start serves k on a real socket and returns a client of it.
func start(t *testing.T, k kms.KEK, timeout time.Duration) *harness {
	t.Helper()
	return startWith(t, kms.Options{KEK: k, RequestTimeout: timeout})
}

func startWith(t *testing.T, opts kms.Options) *harness {
	t.Helper()
	core, logs := observer.New(zapcore.DebugLevel)
	h := &harness{registry: prometheus.NewRegistry(), logs: logs, served: make(chan error, 1)}
	opts.Registerer, opts.Logger = h.registry, zap.New(core)
	h.server = kms.New(opts)
	h.path = filepath.Join(t.TempDir(), "kms.sock")
	l, err := net.Listen("unix", h.path)
	if err != nil {
		t.Fatal(err)
	}
	go func() { h.served <- h.server.Serve(l) }()
	conn, err := grpc.NewClient("unix://"+h.path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		h.server.Shutdown(ctx)
	})
	h.KeyManagementServiceClient, h.v1 = kmsapi.NewKeyManagementServiceClient(conn), kmsv1.NewKeyManagementServiceClient(conn)
	return h
}

func TestRoundTrip(t *testing.T) {
	h := start(t, working(), time.Minute)
	st, err := h.Status(t.Context(), &kmsapi.StatusRequest{})
	if err != nil || st.GetVersion() != "v2" || st.GetHealthz() != "ok" || st.GetKeyId() != keyID {
		t.Errorf("Status = %v, %v", st, err)
	}
	enc, err := h.Encrypt(t.Context(), &kmsapi.EncryptRequest{Uid: "u1", Plaintext: []byte("seed")})
	if err != nil || string(enc.GetCiphertext()) != "dees" || enc.GetKeyId() != keyID || len(enc.GetAnnotations()) != 0 {
		t.Errorf("Encrypt = %v, %v", enc, err)
	}
	dec, err := h.Decrypt(t.Context(), &kmsapi.DecryptRequest{Uid: "u2", Ciphertext: []byte("dees"), KeyId: keyID})
	if err != nil || string(dec.GetPlaintext()) != "seed" {
		t.Errorf("Decrypt = %v, %v", dec, err)
	}
	want := `
# HELP trousseau_kms_requests_total KMS requests, by method and gRPC code.
# TYPE trousseau_kms_requests_total counter
trousseau_kms_requests_total{code="OK",method="Decrypt"} 1
trousseau_kms_requests_total{code="OK",method="Encrypt"} 1
trousseau_kms_requests_total{code="OK",method="Status"} 1
`
	if err := testutil.GatherAndCompare(h.registry, strings.NewReader(want), "trousseau_kms_requests_total"); err != nil {
		t.Error(err)
	}
}

func TestLimitsOfRequests(t *testing.T) {
	h := start(t, working(), time.Minute)
	annotation := func(key string, size int) map[string][]byte {
		return map[string][]byte{key: make([]byte, size)}
	}
	sized := func(n int) []byte { return []byte(strings.Repeat("c", n)) }
	tests := []struct {
		name    string
		request *kmsapi.DecryptRequest
		want    string // of the error; "" if accepted
	}{
		{"largest of all", &kmsapi.DecryptRequest{Ciphertext: sized(1024), KeyId: string(sized(1024)), Annotations: annotation("a.io", 32<<10-4)}, ""},
		{"no ciphertext", &kmsapi.DecryptRequest{KeyId: keyID}, "ciphertext is empty"},
		{"long ciphertext", &kmsapi.DecryptRequest{Ciphertext: sized(1025), KeyId: keyID}, "ciphertext: 1025 bytes exceed the limit of 1024"},
		{"no key_id", &kmsapi.DecryptRequest{Ciphertext: sized(1)}, "key_id is empty"},
		{"long key_id", &kmsapi.DecryptRequest{Ciphertext: sized(1), KeyId: string(sized(1025))}, "key_id: 1025 bytes exceed the limit of 1024"},
		{"many annotations", &kmsapi.DecryptRequest{Ciphertext: sized(1), KeyId: keyID, Annotations: annotation("a.io", 32<<10-3)}, "annotations: 32769 bytes exceed the limit of 32768"},
		{"annotation key of one label", &kmsapi.DecryptRequest{Ciphertext: sized(1), KeyId: keyID, Annotations: annotation("foo", 1)}, "annotation key is not a fully qualified domain name"},
		{"annotation key with a slash", &kmsapi.DecryptRequest{Ciphertext: sized(1), KeyId: keyID, Annotations: annotation("trousseau.io/x", 1)}, "annotation key is not a fully qualified domain name"},
		{"annotation key in capitals", &kmsapi.DecryptRequest{Ciphertext: sized(1), KeyId: keyID, Annotations: annotation("Foo.io", 1)}, "annotation key is not a fully qualified domain name"},
		{"annotation key with a final dot", &kmsapi.DecryptRequest{Ciphertext: sized(1), KeyId: keyID, Annotations: annotation("foo.kubernetes.io.", 1)}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := h.Decrypt(t.Context(), tt.request)
			checkStatus(t, err, codes.InvalidArgument, tt.want)
		})
	}
	t.Run("no plaintext", func(t *testing.T) {
		_, err := h.Encrypt(t.Context(), &kmsapi.EncryptRequest{})
		checkStatus(t, err, codes.InvalidArgument, "plaintext is empty")
	})
	t.Run("message beyond all limits", func(t *testing.T) {
		_, err := h.Encrypt(t.Context(), &kmsapi.EncryptRequest{Plaintext: sized(64 << 10)})
		if got := status.Code(err); got != codes.ResourceExhausted {
			t.Errorf("code = %v, want ResourceExhausted", got)
		}
	})
}

func TestLimitsOfResponses(t *testing.T) {
	tests := []struct {
		name       string
		ciphertext int
		keyID      int
		want       string
	}{
		{"largest of all", 1024, 1024, ""},
		{"no ciphertext", 0, 1, "ciphertext is empty"},
		{"long ciphertext", 1025, 1, "ciphertext: 1025 bytes exceed the limit of 1024"},
		{"no key_id", 1, 0, "key_id is empty"},
		{"long key_id", 1, 1025, "key_id: 1025 bytes exceed the limit of 1024"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k := working()
			k.encrypt = func(context.Context, []byte) ([]byte, string, error) {
				return make([]byte, tt.ciphertext), strings.Repeat("k", tt.keyID), nil
			}
			_, err := start(t, k, time.Minute).Encrypt(t.Context(), &kmsapi.EncryptRequest{Plaintext: []byte("p")})
			checkStatus(t, err, codes.Internal, tt.want)
		})
	}
}

func TestCodes(t *testing.T) {
	tests := []struct {
		err  error
		code codes.Code
		text string
	}{
		{fault.Errorf(fault.Unavailable, "detail"), codes.Unavailable, "vault is unavailable; see trousseau's log"},
		{fault.Errorf(fault.Sealed, "detail"), codes.Unavailable, "vault is sealed or has no active node; see trousseau's log"},
		{fault.Errorf(fault.Throttled, "detail"), codes.ResourceExhausted, "vault's rate limit is exceeded; see trousseau's log"},
		{fault.Errorf(fault.Timeout, "detail"), codes.DeadlineExceeded, "vault did not answer in time; see trousseau's log"},
		{fault.Errorf(fault.Canceled, "detail"), codes.Canceled, "the request was canceled; see trousseau's log"},
		{fault.Errorf(fault.Denied, "detail"), codes.PermissionDenied, "vault denied the request: the token is expired or revoked, or its policy is too narrow; see trousseau's log"},
		{fault.Errorf(fault.KeyLost, "detail"), codes.FailedPrecondition, "the transit key is lost; see trousseau's log"},
		{fault.Errorf(fault.VersionTooOld, "detail"), codes.FailedPrecondition, "this key version may no longer be used; see trousseau's log"},
		{fault.Errorf(fault.VersionTooNew, "detail"), codes.Unavailable, "vault does not know this key version yet; see trousseau's log"},
		{fault.Errorf(fault.Invalid, "detail"), codes.InvalidArgument, "this was not encrypted with this plugin's key; see trousseau's log"},
		{errors.New("detail"), codes.Unavailable, "vault is unavailable; see trousseau's log"},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%T %s", tt.err, fault.ClassOf(tt.err)), func(t *testing.T) {
			k := working()
			k.encrypt = func(context.Context, []byte) ([]byte, string, error) { return nil, "", tt.err }
			k.decrypt = func(context.Context, string, []byte) ([]byte, error) { return nil, tt.err }
			k.status = func() (string, error) { return "", tt.err }
			h := start(t, k, time.Minute)
			_, err := h.Encrypt(t.Context(), &kmsapi.EncryptRequest{Plaintext: []byte("p")})
			checkStatus(t, err, tt.code, tt.text)
			_, err = h.Decrypt(t.Context(), &kmsapi.DecryptRequest{Ciphertext: []byte("c"), KeyId: keyID})
			checkStatus(t, err, tt.code, tt.text)
			// Only an error without a key_id ends kube-apiserver's write window, and the
			// operator needs the reason.
			_, err = h.Status(t.Context(), &kmsapi.StatusRequest{})
			checkStatus(t, err, codes.Unavailable, "detail")
		})
	}
}

func TestDeadline(t *testing.T) {
	left := make(chan time.Duration, 1)
	k := working()
	k.encrypt = func(ctx context.Context, p []byte) ([]byte, string, error) {
		deadline, ok := ctx.Deadline()
		if !ok {
			t.Error("the request has no deadline")
		}
		left <- time.Until(deadline)
		return p, keyID, nil
	}
	h := start(t, k, time.Minute)
	for name, tt := range map[string]struct{ caller, atLeast, atMost time.Duration }{
		"ours where the caller has none": {0, 50 * time.Second, time.Minute},
		"ours where it is shorter":       {time.Hour, 50 * time.Second, time.Minute},
		"the caller's where it is":       {20 * time.Second, 10 * time.Second, 20 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			if tt.caller > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, tt.caller)
				defer cancel()
			}
			if _, err := h.Encrypt(ctx, &kmsapi.EncryptRequest{Plaintext: []byte("p")}); err != nil {
				t.Fatal(err)
			}
			if got := <-left; got < tt.atLeast || got > tt.atMost {
				t.Errorf("time left = %v, want %v to %v", got, tt.atLeast, tt.atMost)
			}
		})
	}
}

func TestPanicIsAnError(t *testing.T) {
	const planted = "plaintext-in-a-panic"
	k := working()
	k.encrypt = func(context.Context, []byte) ([]byte, string, error) { panic(planted) }
	k.decrypt = func(context.Context, string, []byte) ([]byte, error) { panic(planted) }
	h := start(t, k, time.Minute)
	_, err := h.Encrypt(t.Context(), &kmsapi.EncryptRequest{Plaintext: []byte("p")})
	checkStatus(t, err, codes.Internal, "internal error; see trousseau's log")
	_, err = h.Decrypt(t.Context(), &kmsapi.DecryptRequest{Ciphertext: []byte("c"), KeyId: keyID})
	checkStatus(t, err, codes.Internal, "internal error; see trousseau's log")
	if _, err := h.Status(t.Context(), &kmsapi.StatusRequest{}); err != nil {
		t.Errorf("after two panics Status = %v", err)
	}
	if err := testutil.GatherAndCompare(h.registry, strings.NewReader(`
# HELP trousseau_kms_panics_total Panics while handling KMS requests.
# TYPE trousseau_kms_panics_total counter
trousseau_kms_panics_total 2
`), "trousseau_kms_panics_total"); err != nil {
		t.Error(err)
	}
	for _, entry := range h.logs.All() {
		if line := entryText(t, entry); strings.Contains(line, planted) {
			t.Errorf("the panic's value is in the log: %s", line)
		}
	}
}

func TestLog(t *testing.T) {
	const plaintext, ciphertext = "a-plaintext", "txetnialp-a"
	k := working()
	h := start(t, k, time.Minute)
	_, _ = h.Status(t.Context(), &kmsapi.StatusRequest{})
	_, _ = h.Encrypt(t.Context(), &kmsapi.EncryptRequest{Uid: "uid-1", Plaintext: []byte(plaintext)})
	k.decrypt = func(context.Context, string, []byte) ([]byte, error) {
		return nil, fault.Errorf(fault.Denied, "the private reason")
	}
	_, _ = h.Decrypt(t.Context(), &kmsapi.DecryptRequest{Uid: strings.Repeat("u", 99), Ciphertext: []byte(ciphertext), KeyId: keyID})

	entries := h.logs.FilterMessage("request").All()
	if len(entries) != 2 {
		t.Fatalf("%d request lines, want one each for Encrypt and Decrypt", len(entries))
	}
	first, second := entries[0].ContextMap(), entries[1].ContextMap()
	if entries[0].Level != zapcore.DebugLevel || first["method"] != "Encrypt" || first["uid"] != "uid-1" || first["code"] != "OK" || first["key_id_hash"] != keyid.Hash(keyID) || first["duration"] == nil {
		t.Errorf("Encrypt's line: %v %v", entries[0].Level, first)
	}
	if entries[1].Level != zapcore.WarnLevel || second["code"] != "PermissionDenied" || second["error"] != "the private reason" || len(second["uid"].(string)) > 70 {
		t.Errorf("Decrypt's line: %v %v", entries[1].Level, second)
	}
	for _, entry := range entries {
		line := entryText(t, entry)
		for _, secret := range []string{plaintext, ciphertext} {
			if strings.Contains(line, secret) {
				t.Errorf("%q is in the log: %s", secret, line)
			}
		}
	}
}

func TestShutdown(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	k := working()
	k.encrypt = func(_ context.Context, p []byte) ([]byte, string, error) {
		close(entered)
		<-release
		return p, keyID, nil
	}
	h := start(t, k, time.Minute)
	answer := make(chan error, 1)
	go func() {
		_, err := h.Encrypt(context.Background(), &kmsapi.EncryptRequest{Plaintext: []byte("p")})
		answer <- err
	}()
	<-entered
	finished := make(chan bool, 1)
	go func() { finished <- h.server.Shutdown(context.Background()) }()
	for {
		conn, err := net.Dial("unix", h.path)
		if err != nil {
			break // new connections are already refused
		}
		conn.Close()
	}
	close(release)
	if err := <-answer; err != nil {
		t.Errorf("the running request ended with %v", err)
	}
	if !<-finished {
		t.Error("Shutdown says that a request did not finish")
	}
	if err := <-h.served; err != nil {
		t.Errorf("Serve = %v after Shutdown, want nil", err)
	}
}

// The same server serves again after a shutdown, with the same metrics.
func TestServeAgain(t *testing.T) {
	h := start(t, working(), time.Minute)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for range 2 {
		if _, err := h.Status(ctx, &kmsapi.StatusRequest{}, grpc.WaitForReady(true)); err != nil {
			t.Fatal(err)
		}
		if !h.server.Shutdown(ctx) {
			t.Error("Shutdown says that a request did not finish")
		}
		if err := <-h.served; err != nil {
			t.Fatalf("Serve = %v after Shutdown, want nil", err)
		}
		l, err := net.Listen("unix", h.path)
		if err != nil {
			t.Fatal(err)
		}
		go func() { h.served <- h.server.Serve(l) }()
	}
	if _, err := h.Status(ctx, &kmsapi.StatusRequest{}, grpc.WaitForReady(true)); err != nil {
		t.Error(err)
	}
	want := `
# HELP trousseau_kms_requests_total KMS requests, by method and gRPC code.
# TYPE trousseau_kms_requests_total counter
trousseau_kms_requests_total{code="OK",method="Status"} 3
`
	if err := testutil.GatherAndCompare(h.registry, strings.NewReader(want), "trousseau_kms_requests_total"); err != nil {
		t.Error(err)
	}
}

func TestShutdownCutsWhatDoesNotFinish(t *testing.T) {
	entered := make(chan struct{})
	k := working()
	k.encrypt = func(ctx context.Context, p []byte) ([]byte, string, error) {
		close(entered)
		<-ctx.Done()
		return nil, "", ctx.Err()
	}
	h := start(t, k, time.Minute)
	answer := make(chan error, 1)
	go func() {
		_, err := h.Encrypt(context.Background(), &kmsapi.EncryptRequest{Plaintext: []byte("p")})
		answer <- err
	}()
	<-entered
	expired, cancel := context.WithCancel(context.Background())
	cancel()
	if h.server.Shutdown(expired) {
		t.Error("Shutdown says that all requests finished")
	}
	if err := <-answer; status.Code(err) != codes.Unavailable {
		t.Errorf("the running request ended with %v, want Unavailable", err)
	}
}

func checkStatus(t *testing.T, err error, code codes.Code, text string) {
	t.Helper()
	if text == "" {
		if err != nil {
			t.Errorf("error %v, want none", err)
		}
		return
	}
	if st := status.Convert(err); st.Code() != code || st.Message() != text {
		t.Errorf("error = %v %q, want %v %q", st.Code(), st.Message(), code, text)
	}
}

func entryText(t *testing.T, entry observer.LoggedEntry) string {
	t.Helper()
	buf, err := zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()).EncodeEntry(entry.Entry, entry.Context)
	if err != nil {
		t.Fatal(err)
	}
	return buf.String()
}

// TestAnnotationsTravel checks that annotations added by Encrypt are passed to
// Decrypt, and that seeds with different annotations are not merged.
func TestAnnotationsTravel(t *testing.T) {
	k := working()
	k.notes = map[string][]byte{"mark.trousseau.io": []byte("v1")}
	h := start(t, k, time.Minute)
	enc, err := h.Encrypt(t.Context(), &kmsapi.EncryptRequest{Plaintext: []byte("p")})
	if err != nil || string(enc.GetAnnotations()["mark.trousseau.io"]) != "v1" {
		t.Fatalf("Encrypt = %v, %v", enc, err)
	}
	_, err = h.Decrypt(t.Context(), &kmsapi.DecryptRequest{Ciphertext: enc.GetCiphertext(), KeyId: enc.GetKeyId(), Annotations: enc.GetAnnotations()})
	if got := k.noted.Load(); err != nil || got == nil || string((*got)["mark.trousseau.io"]) != "v1" {
		t.Errorf("Decrypt got %v, %v", got, err)
	}
}
