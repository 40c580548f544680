// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"context"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"k8s.io/kms/apis/v1beta1"
	kmsapi "k8s.io/kms/apis/v2"

	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// listen serves a plugin and returns the path of its socket.
func listen(t *testing.T, register func(*grpc.Server)) string {
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
	register(g)
	go func() { _ = g.Serve(l) }()
	t.Cleanup(g.Stop)
	return socket
}

// idlePlugin is a healthy plugin of KMS v2 that is never asked to decrypt.
type idlePlugin struct {
	kmsapi.UnimplementedKeyManagementServiceServer
}

func (idlePlugin) Status(context.Context, *kmsapi.StatusRequest) (*kmsapi.StatusResponse, error) {
	return &kmsapi.StatusResponse{Version: "v2", Healthz: "ok", KeyId: "1"}, nil
}

// oldPlugin is a plugin of KMS v1 that wraps DEKs with Vault's transit engine, as
// plugins for Vault did: the wrapped DEK is what Vault answers.
type oldPlugin struct {
	v1beta1.UnimplementedKeyManagementServiceServer
	vault func(ctx context.Context, stdin string, args ...string) (string, error)
}

// serveOldPlugin serves an oldPlugin with the key of a cluster's Vault.
func serveOldPlugin(t *testing.T, c *testbed.Cluster) (socket string) {
	t.Helper()
	tool, env := c.Tool("vault"), c.Vault.AdminEnvironment("https://"+c.Vault.Addresses()[0])
	p := &oldPlugin{vault: func(ctx context.Context, stdin string, args ...string) (string, error) {
		cmd := exec.CommandContext(ctx, tool, append([]string{"write"}, args...)...)
		cmd.Env, cmd.Stdin = env, strings.NewReader(stdin)
		out, err := cmd.Output()
		if err != nil {
			return "", fmt.Errorf("vault write: %w", err)
		}
		return strings.TrimSpace(string(out)), nil
	}}
	return listen(t, func(g *grpc.Server) { v1beta1.RegisterKeyManagementServiceServer(g, p) })
}

func (*oldPlugin) Version(context.Context, *v1beta1.VersionRequest) (*v1beta1.VersionResponse, error) {
	return &v1beta1.VersionResponse{Version: "v1beta1", RuntimeName: "old", RuntimeVersion: "1"}, nil
}

func (p *oldPlugin) Encrypt(ctx context.Context, r *v1beta1.EncryptRequest) (*v1beta1.EncryptResponse, error) {
	cipher, err := p.vault(ctx, base64.StdEncoding.EncodeToString(r.GetPlain()), "-field=ciphertext", "transit/encrypt/"+testbed.Key, "plaintext=-")
	return &v1beta1.EncryptResponse{Cipher: []byte(cipher)}, err
}

func (p *oldPlugin) Decrypt(ctx context.Context, r *v1beta1.DecryptRequest) (*v1beta1.DecryptResponse, error) {
	text, err := p.vault(ctx, string(r.GetCipher()), "-field=plaintext", "transit/decrypt/"+testbed.Key, "ciphertext=-")
	if err != nil {
		return nil, err
	}
	plain, err := base64.StdEncoding.DecodeString(text)
	return &v1beta1.DecryptResponse{Plain: plain}, err
}
