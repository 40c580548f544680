// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"

	kmsapi "k8s.io/kms/apis/v2"
)

// seeds is the number of different seeds decrypted in turn. Every caller has its
// own, because trousseau merges concurrent calls for the same seed.
const seeds = 4 * mostCallers

// uid is as long as kube-apiserver's.
const uid = "2c4ba0fe-65d1-4e9c-a2f0-3b6ad9a2f6a5"

// calls are the compared requests.
type calls struct {
	direct    *direct
	trousseau *trousseau
	wrapped   []*kmsapi.EncryptResponse
	seed      []byte
}

// newCalls encrypts the seeds to decrypt.
func newCalls(ctx context.Context, d *direct, p *trousseau) (*calls, error) {
	c := &calls{direct: d, trousseau: p, seed: bytes.Repeat([]byte("s"), 32)}
	for range seeds {
		resp, err := p.client.Encrypt(ctx, &kmsapi.EncryptRequest{Plaintext: c.seed, Uid: uid})
		if err != nil {
			return nil, err
		}
		c.wrapped = append(c.wrapped, resp)
	}
	return c, nil
}

// own returns a seed that no other caller uses at the same time.
func (c *calls) own(caller, n int) *kmsapi.EncryptResponse {
	return c.wrapped[(caller+n*mostCallers)%seeds]
}

type side struct {
	side, method string
	call         call
}

func (c *calls) sides() []side {
	return []side{
		{directly, "Encrypt", func(ctx context.Context, _, _ int) error {
			_, err := c.direct.encrypt(ctx, c.seed)
			return err
		}},
		{through, "Encrypt", func(ctx context.Context, _, _ int) error {
			_, err := c.trousseau.client.Encrypt(ctx, &kmsapi.EncryptRequest{Plaintext: c.seed, Uid: uid})
			return err
		}},
		{through, "Status", func(ctx context.Context, _, _ int) error {
			_, err := c.trousseau.client.Status(ctx, &kmsapi.StatusRequest{})
			return err
		}},
		{directly, "Decrypt", func(ctx context.Context, caller, n int) error {
			return c.decryptDirectly(ctx, c.own(caller, n))
		}},
		{through, "Decrypt", func(ctx context.Context, caller, n int) error {
			return c.decrypt(ctx, c.own(caller, n))
		}},
	}
}

var errWrong = errors.New("decrypted seed differs from the encrypted one")

func (c *calls) decryptDirectly(ctx context.Context, wrapped *kmsapi.EncryptResponse) error {
	seed, err := c.direct.decrypt(ctx, wrapped.GetCiphertext())
	if err == nil && !bytes.Equal(seed, c.seed) {
		err = errWrong
	}
	return err
}

func (c *calls) decrypt(ctx context.Context, wrapped *kmsapi.EncryptResponse) error {
	resp, err := c.trousseau.client.Decrypt(ctx, &kmsapi.DecryptRequest{
		Ciphertext: wrapped.GetCiphertext(), KeyId: wrapped.GetKeyId(), Annotations: wrapped.GetAnnotations(), Uid: uid,
	})
	if err == nil && !bytes.Equal(resp.GetPlaintext(), c.seed) {
		err = errWrong
	}
	return err
}
