// SPDX-License-Identifier: Apache-2.0

package conformance_test

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	kmsapi "k8s.io/kms/apis/v2"

	"github.com/trousseau-io/trousseau/internal/endpoint"
)

const keyID = "kek-1"

type (
	statusFunc  func(context.Context, *kmsapi.StatusRequest) (*kmsapi.StatusResponse, error)
	encryptFunc func(context.Context, *kmsapi.EncryptRequest) (*kmsapi.EncryptResponse, error)
	decryptFunc func(context.Context, *kmsapi.DecryptRequest) (*kmsapi.DecryptResponse, error)
)

// plugin is a KMS v2 plugin with its key in memory. newPlugin returns one that obeys
// all rules; a defect replaces a part of it.
type plugin struct {
	status  statusFunc
	encrypt encryptFunc
	decrypt decryptFunc

	aead cipher.AEAD
	// options are the gRPC server's options.
	options []grpc.ServerOption
	// listener may wrap the listener.
	listener func(net.Listener) net.Listener
	// socketMode and dirMode are the modes of the socket and its directory.
	socketMode, dirMode fs.FileMode

	kmsapi.UnsafeKeyManagementServiceServer
}

func newPlugin() *plugin {
	key := make([]byte, 32)
	rand.Read(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	p := &plugin{
		aead:       aead,
		listener:   func(l net.Listener) net.Listener { return l },
		socketMode: 0o600,
		dirMode:    0o750,
	}
	p.status = func(context.Context, *kmsapi.StatusRequest) (*kmsapi.StatusResponse, error) {
		return &kmsapi.StatusResponse{Version: "v2", Healthz: "ok", KeyId: keyID}, nil
	}
	p.encrypt = func(_ context.Context, req *kmsapi.EncryptRequest) (*kmsapi.EncryptResponse, error) {
		if n := len(req.GetPlaintext()); n == 0 || n > 512 {
			return nil, invalid("the plaintext is empty or larger than any of kube-apiserver's")
		}
		nonce := make([]byte, aead.NonceSize())
		rand.Read(nonce)
		return &kmsapi.EncryptResponse{Ciphertext: p.seal(nonce, req.GetPlaintext()), KeyId: keyID}, nil
	}
	p.decrypt = func(_ context.Context, req *kmsapi.DecryptRequest) (*kmsapi.DecryptResponse, error) {
		size := 0
		for key, value := range req.GetAnnotations() {
			size += len(key) + len(value)
		}
		switch {
		case req.GetKeyId() != keyID:
			return nil, invalid("there is no such key_id")
		case size > 32<<10 || len(req.GetCiphertext()) > 1<<10:
			return nil, invalid("the request is larger than any of kube-apiserver's")
		}
		plaintext, err := p.open(req.GetCiphertext())
		if err != nil {
			return nil, err
		}
		return &kmsapi.DecryptResponse{Plaintext: plaintext}, nil
	}
	return p
}

func invalid(why string) error { return status.Error(codes.InvalidArgument, why) }

// seal returns nonce and ciphertext.
func (p *plugin) seal(nonce, plaintext []byte) []byte {
	return p.aead.Seal(nonce, nonce, plaintext, nil)
}

func (p *plugin) open(ciphertext []byte) ([]byte, error) {
	if len(ciphertext) < p.aead.NonceSize() {
		return nil, invalid("the ciphertext is too short")
	}
	plaintext, err := p.aead.Open(nil, ciphertext[:p.aead.NonceSize()], ciphertext[p.aead.NonceSize():], nil)
	if err != nil {
		return nil, invalid("the ciphertext is not ours")
	}
	return plaintext, nil
}

func (p *plugin) Status(ctx context.Context, req *kmsapi.StatusRequest) (*kmsapi.StatusResponse, error) {
	return p.status(ctx, req)
}

func (p *plugin) Encrypt(ctx context.Context, req *kmsapi.EncryptRequest) (*kmsapi.EncryptResponse, error) {
	return p.encrypt(ctx, req)
}

func (p *plugin) Decrypt(ctx context.Context, req *kmsapi.DecryptRequest) (*kmsapi.DecryptResponse, error) {
	return p.decrypt(ctx, req)
}

// serve serves p on a real socket until the end of the test.
func (p *plugin) serve(t *testing.T) endpoint.Endpoint {
	t.Helper()
	dir := socketDir(t)
	path := filepath.Join(dir, "kms.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]fs.FileMode{path: p.socketMode, dir: p.dirMode} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	p.serveOn(t, l)
	return at(t, path)
}

// serveAbstract serves p on an abstract socket.
func (p *plugin) serveAbstract(t *testing.T) endpoint.Endpoint {
	t.Helper()
	name := "@" + filepath.Base(socketDir(t))
	l, err := net.Listen("unix", name)
	if err != nil {
		t.Fatal(err)
	}
	p.serveOn(t, l)
	return at(t, "/"+name)
}

func (p *plugin) serveOn(t *testing.T, l net.Listener) {
	t.Helper()
	server := grpc.NewServer(p.options...)
	kmsapi.RegisterKeyManagementServiceServer(server, p)
	served := make(chan error, 1)
	go func() { served <- server.Serve(p.listener(l)) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

func at(t *testing.T, path string) endpoint.Endpoint {
	t.Helper()
	e, err := endpoint.Parse("unix://" + path)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// socketDir returns a directory with a path short enough for a socket. All its
// parents are accessible to everyone.
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "kms")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
