// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	kmsservice "k8s.io/kms/pkg/service"

	"github.com/trousseau-io/trousseau/test/apiserver"
	"github.com/trousseau-io/trousseau/test/harness/load"
)

const (
	callers = 4
	// pace is the time between two rounds of a caller; a round is three calls.
	pace = 10 * time.Millisecond
	// patience is above every timeout of kube-apiserver's.
	patience = time.Minute
)

// traffic is continuous load: callers that make KMS calls with kube-apiserver's
// client, each on a connection of its own, and one kube-apiserver that writes and
// reads Secrets.
type traffic struct {
	workers      *load.Workers
	kms, secrets load.Counter
}

func startTraffic(ctx context.Context, socket string, api *apiserver.Server) (*traffic, error) {
	l := &traffic{workers: load.NewWorkers()}
	for range callers {
		kms, err := apiserver.Dial(ctx, socket, "load")
		if err != nil {
			l.workers.Stop()
			return nil, err
		}
		l.callKMS(ctx, kms)
	}
	l.workers.Go(pace, func() {
		_ = l.secrets.Do(ctx, patience, func(ctx context.Context) error { return writeAndRead(ctx, api) })
	})
	return l, nil
}

// stop stops the traffic after the running calls.
func (l *traffic) stop() { l.workers.Stop() }

// failures counts those of KMS calls and of Secrets.
func (l *traffic) failures() int { return l.kms.Count().Failures + l.secrets.Count().Failures }

// reached is a condition for plugin.Await: this many more calls than in before.
func (l *traffic) reached(before load.Count, more int) func(context.Context) (bool, error) {
	return func(context.Context) (bool, error) { return l.kms.Count().Operations >= before.Operations+more, nil }
}

// callKMS encrypts a new plaintext, decrypts it, and decrypts its first
// ciphertext, repeatedly.
func (l *traffic) callKMS(ctx context.Context, kms kmsservice.Service) {
	var oldest wrapped
	uid := 0
	l.workers.Go(pace, func() {
		uid++
		plaintext := make([]byte, 32)
		rand.Read(plaintext)
		fresh := wrapped{plaintext: plaintext}
		_ = l.kms.Do(ctx, patience, func(ctx context.Context) (err error) {
			fresh.response, err = kms.Encrypt(ctx, fmt.Sprint("demo-", uid), plaintext)
			return err
		})
		if oldest.response == nil {
			oldest = fresh
		}
		for _, w := range []wrapped{fresh, oldest} {
			if w.response != nil {
				_ = l.kms.Do(ctx, patience, func(ctx context.Context) error { return w.check(ctx, kms, fmt.Sprint("demo-", uid)) })
			}
		}
	})
}

// wrapped is a plaintext and its ciphertext.
type wrapped struct {
	plaintext []byte
	response  *kmsservice.EncryptResponse
}

func (w wrapped) check(ctx context.Context, kms kmsservice.Service, uid string) error {
	got, err := kms.Decrypt(ctx, uid, &kmsservice.DecryptRequest{Ciphertext: w.response.Ciphertext, KeyID: w.response.KeyID})
	if err == nil && !bytes.Equal(got, w.plaintext) {
		err = errors.New("decrypt did not return the plaintext that was encrypted")
	}
	return err
}

func writeAndRead(ctx context.Context, api *apiserver.Server) error {
	password := rand.Text()
	stored, err := api.Write(ctx, apiserver.Secret("load", password))
	if err != nil {
		return err
	}
	secret, _, err := api.Read(ctx, "load", stored)
	if err == nil && string(secret.Data["password"]) != password {
		err = errors.New("the password read is not the one written")
	}
	return err
}
