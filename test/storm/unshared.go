// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"

	kmsservice "k8s.io/kms/pkg/service"

	"github.com/trousseau-io/trousseau/test/harness/direct"
)

// unshared is a plugin that makes one call to Vault for each request, on connections
// that it keeps. It has no process and no socket, so it costs less than a real one.
type unshared struct {
	vault *direct.Client
	key   string
}

func newUnshared(ctx context.Context, v reach, c *cluster, conns int) (kmsservice.Service, error) {
	client, err := direct.New(v.url, v.ca, c.token, conns)
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, client.Close)
	return &unshared{client, c.key}, nil
}

// Status makes a round trip, as such plugins do.
func (u *unshared) Status(ctx context.Context) (*kmsservice.StatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, kmsTimeout)
	defer cancel()
	probe := []byte("health")
	ciphertext, err := u.vault.Encrypt(ctx, u.key, probe)
	if err != nil {
		return nil, err
	}
	got, err := u.vault.Decrypt(ctx, u.key, ciphertext)
	if err == nil && !bytes.Equal(got, probe) {
		err = errWrong
	}
	return &kmsservice.StatusResponse{Version: "v2", Healthz: "ok", KeyID: "1"}, err
}

func (u *unshared) Decrypt(ctx context.Context, _ string, req *kmsservice.DecryptRequest) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, kmsTimeout)
	defer cancel()
	return u.vault.Decrypt(ctx, u.key, req.Ciphertext)
}

func (u *unshared) Encrypt(context.Context, string, []byte) (*kmsservice.EncryptResponse, error) {
	return nil, errors.ErrUnsupported
}
