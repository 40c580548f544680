// SPDX-License-Identifier: Apache-2.0

// Package otherplugin stands in for the plugins that users come from. They store the
// ciphertext of Vault's transit engine, and record neither key nor engine.
package otherplugin

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"strconv"

	"google.golang.org/grpc"
	"k8s.io/kms/apis/v1beta1"
	kmsapi "k8s.io/kms/apis/v2"

	"github.com/trousseau-io/trousseau/internal/vault"
)

// Plugin is a plugin that serves a socket.
type Plugin struct{ server *grpc.Server }

// Serve serves a plugin at the path of a socket, which must be free.
func Serve(socket string, register func(*grpc.Server)) (*Plugin, error) {
	l, err := net.Listen("unix", socket)
	if err != nil {
		return nil, err
	}
	p := &Plugin{grpc.NewServer()}
	register(p.server)
	go func() { _ = p.server.Serve(l) }()
	return p, nil
}

// Stop ends the plugin and removes the socket.
func (p *Plugin) Stop() { p.server.Stop() }

// Key is a transit key, with a token that may use it.
type Key struct {
	Vault *vault.Client
	Name  string
}

// NewKey returns a transit key in the Vault at an address, whose CA is in a file. It is
// closed when the process ends.
func NewKey(address, caFile, token, name string) (Key, error) {
	ca, err := os.ReadFile(caFile)
	if err != nil {
		return Key{}, err
	}
	nodes, err := vault.Dial(vault.Config{Addresses: []string{address}, Mount: "transit", Credential: vault.Given(token), CACert: ca})
	if err != nil {
		return Key{}, err
	}
	return Key{nodes[0], name}, nil
}

// KMSv1 registers a plugin of KMS v1. A DEK is stored as Vault's ciphertext, as by the
// original Trousseau 1.x or, if lines, as by 2.0: a line for each of its providers, of
// which only Vault is here.
func (k Key) KMSv1(lines bool) func(*grpc.Server) {
	return func(s *grpc.Server) { v1beta1.RegisterKeyManagementServiceServer(s, &kmsV1{key: k, lines: lines}) }
}

type kmsV1 struct {
	v1beta1.UnimplementedKeyManagementServiceServer
	key   Key
	lines bool
}

// prefix is before the ciphertext in base64, in a line of 2.0.
const prefix = "vault:-:"

func (*kmsV1) Version(context.Context, *v1beta1.VersionRequest) (*v1beta1.VersionResponse, error) {
	return &v1beta1.VersionResponse{Version: "v1beta1", RuntimeName: "HashiCorp Vault KMS", RuntimeVersion: "dev"}, nil
}

func (p *kmsV1) Encrypt(ctx context.Context, r *v1beta1.EncryptRequest) (*v1beta1.EncryptResponse, error) {
	ciphertext, _, err := p.key.Vault.Encrypt(ctx, p.key.Name, 0, r.GetPlain(), nil)
	if p.lines {
		ciphertext = fmt.Appendf(nil, "%s%s\n", prefix, base64.StdEncoding.EncodeToString(ciphertext))
	}
	return &v1beta1.EncryptResponse{Cipher: ciphertext}, err
}

func (p *kmsV1) Decrypt(ctx context.Context, r *v1beta1.DecryptRequest) (*v1beta1.DecryptResponse, error) {
	ciphertext := r.GetCipher()
	if p.lines {
		var err error
		if ciphertext, err = base64.StdEncoding.DecodeString(string(bytes.TrimPrefix(bytes.TrimSpace(ciphertext), []byte(prefix)))); err != nil {
			return nil, err
		}
	}
	plain, err := p.key.Vault.Decrypt(ctx, p.key.Name, ciphertext, nil)
	return &v1beta1.DecryptResponse{Plain: plain}, err
}

// KMSv2 registers a plugin of KMS v2 whose key_id is the key's newest version, which it
// reads after it has encrypted. It decrypts whatever its key has encrypted, under any
// key_id.
func (k Key) KMSv2(s *grpc.Server) { kmsapi.RegisterKeyManagementServiceServer(s, &kmsV2{key: k}) }

type kmsV2 struct {
	kmsapi.UnimplementedKeyManagementServiceServer
	key Key
}

func (p *kmsV2) Status(ctx context.Context, _ *kmsapi.StatusRequest) (*kmsapi.StatusResponse, error) {
	key, err := p.key.Vault.ReadKey(ctx, p.key.Name)
	return &kmsapi.StatusResponse{Version: "v2", Healthz: "ok", KeyId: strconv.Itoa(key.Latest)}, err
}

func (p *kmsV2) Encrypt(ctx context.Context, r *kmsapi.EncryptRequest) (*kmsapi.EncryptResponse, error) {
	ciphertext, _, err := p.key.Vault.Encrypt(ctx, p.key.Name, 0, r.GetPlaintext(), nil)
	if err != nil {
		return nil, err
	}
	key, err := p.key.Vault.ReadKey(ctx, p.key.Name)
	return &kmsapi.EncryptResponse{Ciphertext: ciphertext, KeyId: strconv.Itoa(key.Latest)}, err
}

func (p *kmsV2) Decrypt(ctx context.Context, r *kmsapi.DecryptRequest) (*kmsapi.DecryptResponse, error) {
	plaintext, err := p.key.Vault.Decrypt(ctx, p.key.Name, r.GetCiphertext(), nil)
	return &kmsapi.DecryptResponse{Plaintext: plaintext}, err
}
