// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"reflect"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	kmsapi "k8s.io/kms/apis/v2"
)

func TestParsePeers(t *testing.T) {
	for text, want := range map[string][]peer{
		"":                  nil,
		"other=/run/o.sock": {{name: "other", path: "/run/o.sock", args: []string{}}},
		"before=bin/old, two=bin/trousseau --max-vault-requests=2 --sandbox=false": {
			{"before", "bin/old", []string{}},
			{"two", "bin/trousseau", []string{"--max-vault-requests=2", "--sandbox=false"}},
		},
	} {
		got, err := parsePeers(text)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("parsePeers(%q) = %q, %v, want %q", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"/run/o.sock":  `peer "/run/o.sock": want NAME=/path/to.sock, or NAME=/path/to/trousseau --flag`,
		"a=":           `peer "a=": want NAME=/path/to.sock, or NAME=/path/to/trousseau --flag`,
		"a=/x,a=/y":    `peer "a": the name is taken`,
		"trousseau=/x": `peer "trousseau": the name is taken`,
	} {
		if _, err := parsePeers(text); err == nil || err.Error() != want {
			t.Errorf("parsePeers(%q): got %v, want %s", text, err, want)
		}
	}
}

func TestCallersHaveTheirOwnSeeds(t *testing.T) {
	c := &contender{wrapped: make([]*kmsapi.EncryptResponse, seeds)}
	users := make(map[string]int)
	for i := range c.wrapped {
		c.wrapped[i] = &kmsapi.EncryptResponse{Ciphertext: seed(i)}
	}
	caller := 0
	c.decrypt = func(_ context.Context, wrapped *kmsapi.EncryptResponse) ([]byte, error) {
		if user, used := users[string(wrapped.GetCiphertext())]; used && user != caller {
			t.Fatalf("callers %d and %d decrypt the same seed", user, caller)
		}
		users[string(wrapped.GetCiphertext())] = caller
		return wrapped.GetCiphertext(), nil
	}
	decrypt := c.call("Decrypt")
	for caller = range mostCallers {
		for n := range 100 {
			if err := decrypt(t.Context(), caller, n); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestWrongSeedFails(t *testing.T) {
	c := &contender{
		wrapped: []*kmsapi.EncryptResponse{{}},
		decrypt: func(context.Context, *kmsapi.EncryptResponse) ([]byte, error) { return seed(1), nil },
	}
	s := each(t.Context(), 1, 1, c.decryptSeed)
	if s.failed != 1 || !errors.Is(s.failure, errWrong) {
		t.Errorf("got %d failed (%v), want 1 failed (%v)", s.failed, s.failure, errWrong)
	}
}

// late is a plugin that has no key at first.
type late struct {
	kmsapi.UnimplementedKeyManagementServiceServer
	asked atomic.Int64
}

func (l *late) Status(context.Context, *kmsapi.StatusRequest) (*kmsapi.StatusResponse, error) {
	switch l.asked.Add(1) {
	case 1:
		return nil, grpcstatus.Error(codes.Unavailable, "not yet")
	case 2:
		return &kmsapi.StatusResponse{Healthz: "not yet"}, nil
	}
	return &kmsapi.StatusResponse{Healthz: "ok"}, nil
}

func TestAwaitHealthyPeer(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "late.sock")
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server, plugin := grpc.NewServer(), &late{}
	kmsapi.RegisterKeyManagementServiceServer(server, plugin)
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	c, end, err := peer{name: "late", path: socket}.start(t.Context(), &upstream{})
	if err != nil {
		t.Fatal(err)
	}
	end()
	if got := plugin.asked.Load(); c.name != "late" || c.process != nil || got != 3 {
		t.Errorf("got peer %q with process %v after %d Statuses, want late without a process after 3", c.name, c.process, got)
	}
}
