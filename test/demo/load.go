// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	kmsservice "k8s.io/kms/pkg/service"

	"github.com/trousseau-io/trousseau/test/apiserver"
)

const (
	callers = 4
	// pace is how often each caller goes round; a round is three calls.
	pace = 10 * time.Millisecond
)

// load is traffic that does not stop while the story goes on: callers that make
// KMS calls with kube-apiserver's client, each on a connection of its own, and
// one kube-apiserver that writes and reads Secrets.
type load struct {
	stopping context.CancelFunc
	running  sync.WaitGroup

	mu  sync.Mutex
	now tally
}

// tally is what has happened.
type tally struct {
	calls   int           // Encrypt and Decrypt
	secrets int           // written and read back
	failed  int           // of both
	slowest time.Duration // KMS call since the last mark
	first   error         // of those that failed
}

func startLoad(ctx context.Context, socket string, api *apiserver.Server) (*load, error) {
	running, stop := context.WithCancel(ctx)
	l := &load{stopping: stop}
	for range callers {
		kms, err := apiserver.Dial(ctx, socket, "load")
		if err != nil {
			stop()
			return nil, err
		}
		l.running.Go(func() { l.callKMS(ctx, running, kms) })
	}
	l.running.Go(func() { l.useSecrets(ctx, running, api) })
	return l, nil
}

// stop ends the load after what is under way and returns what has happened.
func (l *load) stop() tally {
	l.stopping()
	l.running.Wait()
	return l.tally()
}

func (l *load) tally() tally {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now
}

// mark returns what has happened and begins looking for the slowest call anew.
func (l *load) mark() tally {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := l.now
	l.now.slowest = 0
	return before
}

// reached is a condition for plugin.Await: so many more calls than in before.
func (l *load) reached(before tally, more int) func(context.Context) (bool, error) {
	return func(context.Context) (bool, error) { return l.tally().calls >= before.calls+more, nil }
}

// callKMS encrypts something new, decrypts it, and decrypts the first thing it
// ever encrypted, over and over until running is done.
func (l *load) callKMS(ctx, running context.Context, kms kmsservice.Service) {
	tick := time.NewTicker(pace)
	defer tick.Stop()
	var oldest wrapped
	for uid := 0; ; uid++ {
		plaintext := make([]byte, 32)
		rand.Read(plaintext)
		fresh := wrapped{plaintext: plaintext}
		l.call(func() (err error) {
			fresh.response, err = kms.Encrypt(ctx, fmt.Sprint("demo-", uid), plaintext)
			return err
		})
		if oldest.response == nil {
			oldest = fresh
		}
		for _, w := range []wrapped{fresh, oldest} {
			if w.response != nil {
				l.call(func() error { return w.check(ctx, kms, fmt.Sprint("demo-", uid)) })
			}
		}
		select {
		case <-running.Done():
			return
		case <-tick.C:
		}
	}
}

// wrapped is a plaintext and what Encrypt made of it.
type wrapped struct {
	plaintext []byte
	response  *kmsservice.EncryptResponse
}

func (w wrapped) check(ctx context.Context, kms kmsservice.Service, uid string) error {
	got, err := kms.Decrypt(ctx, uid, &kmsservice.DecryptRequest{Ciphertext: w.response.Ciphertext, KeyID: w.response.KeyID})
	if err == nil && !bytes.Equal(got, w.plaintext) {
		err = errors.New("decrypt returned something else than was encrypted")
	}
	return err
}

// call counts and times one KMS call.
func (l *load) call(kms func() error) {
	began := time.Now()
	err := kms()
	took := time.Since(began)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now.calls++
	l.now.slowest = max(l.now.slowest, took)
	l.note(err)
}

// useSecrets writes and reads Secrets until running is done.
func (l *load) useSecrets(ctx, running context.Context, api *apiserver.Server) {
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for {
		err := writeAndRead(ctx, api)
		l.mu.Lock()
		l.now.secrets++
		l.note(err)
		l.mu.Unlock()
		select {
		case <-running.Done():
			return
		case <-tick.C:
		}
	}
}

func writeAndRead(ctx context.Context, api *apiserver.Server) error {
	password := rand.Text()
	stored, err := api.Write(ctx, apiserver.Secret("load", password))
	if err != nil {
		return err
	}
	secret, _, err := api.Read(ctx, "load", stored)
	if err == nil && string(secret.Data["password"]) != password {
		err = errors.New("the Secret read is not the one written")
	}
	return err
}

// note counts a failure. The caller holds l.mu.
func (l *load) note(err error) {
	if err == nil {
		return
	}
	l.now.failed++
	if l.now.first == nil {
		l.now.first = err
	}
}
