// SPDX-License-Identifier: Apache-2.0

package drill_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	kmsapi "k8s.io/kms/apis/v2"

	"github.com/trousseau-io/trousseau/internal/ctl/audit/drill"
	"github.com/trousseau-io/trousseau/internal/endpoint"
	"github.com/trousseau-io/trousseau/internal/seed"
)

// plugin is a KMS v2 plugin with the same answer for every Decrypt.
type plugin struct {
	kmsapi.UnimplementedKeyManagementServiceServer
	plaintext []byte
	err       error
	asked     *kmsapi.DecryptRequest
}

func (p *plugin) Status(context.Context, *kmsapi.StatusRequest) (*kmsapi.StatusResponse, error) {
	return &kmsapi.StatusResponse{Version: "v2", Healthz: "ok", KeyId: "1"}, nil
}

func (p *plugin) Decrypt(_ context.Context, r *kmsapi.DecryptRequest) (*kmsapi.DecryptResponse, error) {
	p.asked = r
	return &kmsapi.DecryptResponse{Plaintext: p.plaintext}, p.err
}

// serve serves p and returns its endpoint.
func serve(t *testing.T, p *plugin) endpoint.Endpoint {
	t.Helper()
	dir, err := os.MkdirTemp("", "kms") // the path of t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "kms.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	kmsapi.RegisterKeyManagementServiceServer(g, p)
	go func() { _ = g.Serve(l) }()
	t.Cleanup(g.Stop)
	return at(t, socket)
}

func TestPluginUnwraps(t *testing.T) {
	p := &plugin{plaintext: make([]byte, 32)}
	d, err := drill.DialPlugin(t.Context(), serve(t, p))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	w := seed.Wrapped{KeyID: "1", Ciphertext: []byte("c"), Annotations: map[string][]byte{"a.b": []byte("v")}}
	if plaintext, err := d.Unwrap(t.Context(), w); err != nil || len(plaintext) != 32 {
		t.Fatalf("got %d bytes, %v", len(plaintext), err)
	}
	if r := p.asked; r.GetKeyId() != "1" || string(r.GetCiphertext()) != "c" || string(r.GetAnnotations()["a.b"]) != "v" || r.GetUid() == "" {
		t.Errorf("the plugin was asked %v", r)
	}
}

func TestPluginRefuses(t *testing.T) {
	tests := map[codes.Code]struct {
		verdict drill.Verdict
		passing bool
	}{
		codes.InvalidArgument:    {drill.Unknown, false}, // the data may be another plugin's
		codes.FailedPrecondition: {drill.Lost, false},
		codes.NotFound:           {drill.Lost, false},
		codes.Unavailable:        {drill.Unknown, true},
		codes.DeadlineExceeded:   {drill.Unknown, true},
		codes.ResourceExhausted:  {drill.Unknown, true},
		codes.PermissionDenied:   {drill.Unknown, false},
		codes.Unknown:            {drill.Unknown, false},
	}
	for code, test := range tests {
		t.Run(code.String(), func(t *testing.T) {
			d, err := drill.DialPlugin(t.Context(), serve(t, &plugin{err: status.Error(code, "\x1b[31m"+strings.Repeat("x", 500))}))
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			_, err = d.Unwrap(t.Context(), seed.Wrapped{KeyID: "1", Ciphertext: []byte("c")})
			var failure *drill.Failure
			if !errors.As(err, &failure) || failure.Verdict != test.verdict || failure.Passing != test.passing {
				t.Fatalf("got %#v, want %+v", err, test)
			}
			if r := failure.Reason; !strings.Contains(r, code.String()) || strings.Contains(r, "\x1b") || len(r) > 300 {
				t.Errorf("the reason is %q, want the code and a short printable text", r)
			}
		})
	}
}

// A DEK of KMS v1 is not sent to a plugin of KMS v2.
func TestPluginOfTheOtherVersion(t *testing.T) {
	p := &plugin{plaintext: make([]byte, 32)}
	d, err := drill.DialPlugin(t.Context(), serve(t, p))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	_, err = d.Unwrap(t.Context(), seed.Wrapped{Ciphertext: []byte("vault:v1:c")})
	var failure *drill.Failure
	if !errors.As(err, &failure) || failure.Verdict != drill.Unknown || !strings.Contains(failure.Reason, "use --vault-config") || p.asked != nil {
		t.Errorf("got %v, asked %v, want it unknown", err, p.asked)
	}
}

func TestPluginNotThere(t *testing.T) {
	if _, err := drill.DialPlugin(t.Context(), at(t, filepath.Join(t.TempDir(), "none.sock"))); err == nil || !strings.Contains(err.Error(), "check that it runs") {
		t.Errorf("got %v, want what to check", err)
	}
}

func at(t *testing.T, socket string) endpoint.Endpoint {
	t.Helper()
	e, err := endpoint.Parse(socket)
	if err != nil {
		t.Fatal(err)
	}
	return e
}
