// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	kmsapi "k8s.io/kms/apis/v2"

	"github.com/trousseau-io/trousseau/test/harness/direct"
)

const (
	// coldSeeds is the number of seeds that a cold start decrypts.
	coldSeeds = 10_000
	// seeds is the number of different seeds. It is a multiple of mostCallers, so that
	// concurrent callers never use the same one: trousseau would merge their calls.
	seeds = 40 * mostCallers
	// uid is as long as kube-apiserver's.
	uid = "2c4ba0fe-65d1-4e9c-a2f0-3b6ad9a2f6a5"
)

// contender is what is measured: direct calls, or a KMS v2 plugin.
type contender struct {
	name    string
	encrypt func(ctx context.Context, seed []byte) (*kmsapi.EncryptResponse, error)
	decrypt func(ctx context.Context, wrapped *kmsapi.EncryptResponse) ([]byte, error)
	status  func(ctx context.Context) error // nil for direct calls
	// atOnce is how many of a storm's requests are under way at the same time.
	atOnce int
	// process is nil unless this program has started the plugin.
	process *trousseau
	// wrapped are the seeds as this contender has encrypted them.
	wrapped []*kmsapi.EncryptResponse
}

// directly is the name of direct calls, through that of the binary to measure, and
// before that of the peer which a change must not be slower than.
const (
	directly = "direct"
	through  = "trousseau"
	before   = "before"
)

// ofDirect makes the contender that calls Vault directly. A client with one
// connection per caller has no more callers than this in a storm: 10,000 connections
// would be slower.
func ofDirect(d *direct.Client) *contender {
	return &contender{
		name: directly,
		encrypt: func(ctx context.Context, seed []byte) (*kmsapi.EncryptResponse, error) {
			ciphertext, err := d.Encrypt(ctx, keyA, seed)
			return &kmsapi.EncryptResponse{Ciphertext: ciphertext}, err
		},
		decrypt: func(ctx context.Context, wrapped *kmsapi.EncryptResponse) ([]byte, error) {
			return d.Decrypt(ctx, keyA, wrapped.GetCiphertext())
		},
		atOnce: crowd,
	}
}

// ofPlugin makes the contender that calls a plugin over one connection, like
// kube-apiserver. In a storm it gets all requests at once.
func ofPlugin(name string, client kmsapi.KeyManagementServiceClient, process *trousseau) *contender {
	return &contender{
		name: name,
		encrypt: func(ctx context.Context, seed []byte) (*kmsapi.EncryptResponse, error) {
			return client.Encrypt(ctx, &kmsapi.EncryptRequest{Plaintext: seed, Uid: uid})
		},
		decrypt: func(ctx context.Context, wrapped *kmsapi.EncryptResponse) ([]byte, error) {
			resp, err := client.Decrypt(ctx, &kmsapi.DecryptRequest{
				Ciphertext: wrapped.GetCiphertext(), KeyId: wrapped.GetKeyId(), Annotations: wrapped.GetAnnotations(), Uid: uid,
			})
			return resp.GetPlaintext(), err
		},
		status: func(ctx context.Context) error {
			_, err := client.Status(ctx, &kmsapi.StatusRequest{})
			return err
		},
		atOnce:  coldSeeds,
		process: process,
	}
}

// prepare encrypts the seeds to decrypt.
func (c *contender) prepare(ctx context.Context) error {
	c.wrapped = make([]*kmsapi.EncryptResponse, seeds)
	s := each(ctx, seeds, 16, func(ctx context.Context, i int) (err error) {
		c.wrapped[i], err = c.encrypt(ctx, seed(i))
		return err
	})
	if s.failed > 0 {
		return fmt.Errorf("%s: %w", c.name, s.failure)
	}
	return nil
}

// seed returns the seed with a number. All differ, so that an answer to another
// request is noticed.
func seed(i int) []byte {
	return binary.BigEndian.AppendUint64(bytes.Repeat([]byte("s"), 24), uint64(i))
}

var errWrong = errors.New("decrypted seed differs from the encrypted one")

func (c *contender) decryptSeed(ctx context.Context, i int) error {
	got, err := c.decrypt(ctx, c.wrapped[i])
	if err == nil && !bytes.Equal(got, seed(i)) {
		err = errWrong
	}
	return err
}

// call returns the call that callers of a method make again and again, each with
// seeds of its own.
func (c *contender) call(method string) call {
	switch method {
	case "Encrypt":
		return func(ctx context.Context, caller, _ int) error {
			_, err := c.encrypt(ctx, seed(caller))
			return err
		}
	case "Decrypt":
		return func(ctx context.Context, caller, n int) error {
			return c.decryptSeed(ctx, (caller+n*mostCallers)%seeds)
		}
	default:
		return func(ctx context.Context, _, _ int) error { return c.status(ctx) }
	}
}
