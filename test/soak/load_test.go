// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	kmsapi "k8s.io/kms/apis/v2"
)

// misbehaving is a KMS plugin with configurable faults. It encrypts by adding a
// letter.
type misbehaving struct {
	kmsapi.UnimplementedKeyManagementServiceServer

	keyID  string // that Encrypt uses; Status always reports "one"
	garble bool   // Decrypt's answer
	err    error  // of every Encrypt
	down   error  // of every Status
}

func (p *misbehaving) Status(context.Context, *kmsapi.StatusRequest) (*kmsapi.StatusResponse, error) {
	if p.down != nil {
		return nil, p.down
	}
	return &kmsapi.StatusResponse{Version: "v2", Healthz: "ok", KeyId: "one"}, nil
}

func (p *misbehaving) Encrypt(_ context.Context, r *kmsapi.EncryptRequest) (*kmsapi.EncryptResponse, error) {
	if p.err != nil {
		return nil, p.err
	}
	return &kmsapi.EncryptResponse{Ciphertext: append([]byte("x"), r.GetPlaintext()...), KeyId: p.keyID}, nil
}

func (p *misbehaving) Decrypt(_ context.Context, r *kmsapi.DecryptRequest) (*kmsapi.DecryptResponse, error) {
	if p.garble {
		return &kmsapi.DecryptResponse{Plaintext: r.GetCiphertext()}, nil
	}
	return &kmsapi.DecryptResponse{Plaintext: r.GetCiphertext()[1:]}, nil
}

func TestAnswersAreJudged(t *testing.T) {
	const secret = "hvs.AAAABBBBCCCCDDDD"
	for _, c := range []struct {
		name   string
		plugin misbehaving
		peace  bool
		want   string // part of the violation; "" for none
	}{
		{"good", misbehaving{keyID: "one"}, true, ""},
		{"key_id not reported", misbehaving{keyID: "two"}, false, "Status has not reported"},
		{"another plaintext", misbehaving{keyID: "one", garble: true}, false, "returned a different plaintext"},
		{"failure during a fault", misbehaving{err: status.Error(codes.Unavailable, "down")}, false, ""},
		{"failure without a fault", misbehaving{err: status.Error(codes.Unavailable, "down")}, true, "only a harmless fault active"},
		{"failure that blames the caller", misbehaving{err: status.Error(codes.InvalidArgument, "yours")}, false, "no fault explains"},
		{"failure with a secret", misbehaving{err: status.Error(codes.Unavailable, "token "+secret)}, false, "contains a secret"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, violations := serve(t, &c.plugin)
			l.secrets.add(secret)
			if c.peace {
				l.peace.begin()
			}
			client, err := l.dial()
			if err != nil {
				t.Fatal(err)
			}
			l.round(t.Context(), client)
			l.close()
			got := ""
			if all := violations(); len(all) > 0 {
				got = all[0].Error()
			}
			if (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
				t.Errorf("got violation %q, want it to contain %q", got, c.want)
			}
		})
	}
}

func TestFailureOfStatusIsHeldToDirectCalls(t *testing.T) {
	down := status.Error(codes.Unavailable, "down")
	for _, c := range []struct {
		name    string
		down    error
		starved bool
		want    bool
	}{
		{"ok", nil, false, false},
		{"fails", down, false, true},
		{"fails while the machine is busy", down, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, violations := serve(t, &misbehaving{down: c.down})
			if c.starved {
				l.pulse.last = time.Now().Add(-time.Hour)
			}
			good := func() direct { return direct{process: 1, intact: true, began: time.Now(), ended: time.Now()} }
			first := good()
			first.ended = first.ended.Add(-2 * patience)
			if err := l.evidence.add(first); err != nil {
				t.Fatal(err)
			}
			client, err := l.dial()
			if err != nil {
				t.Fatal(err)
			}
			_ = l.status(t.Context(), client)
			l.close()
			if err := l.evidence.add(good()); (err != nil) != c.want {
				t.Errorf("got violation %v, want one: %t", err, c.want)
			}
			if all := violations(); len(all) > 0 {
				t.Errorf("got other violations: %v", all)
			}
		})
	}
}

// serve starts a load on a plugin and returns it with its first violation.
func serve(t *testing.T, p *misbehaving) (l *load, violations func() []error) {
	t.Helper()
	// Not t.TempDir: its path may be too long for a socket.
	socket := filepath.Join(shortDir(t), "kms.sock")
	listener, err := new(net.ListenConfig).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	kmsapi.RegisterKeyManagementServiceServer(server, p)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)

	var mu sync.Mutex
	var all []error
	l = &load{
		socket: socket, starts: func() int { return 1 }, peace: &peace{}, pulse: &pulse{last: time.Now().Add(time.Hour)},
		ledger: newLedger(), evidence: &evidence{}, secrets: newSecrets(), tally: newTally(),
		fail: func(err error) {
			mu.Lock()
			defer mu.Unlock()
			all = append(all, err)
		},
	}
	return l, func() []error {
		mu.Lock()
		defer mu.Unlock()
		return all
	}
}
