// SPDX-License-Identifier: Apache-2.0

package testbed

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trousseau-io/trousseau/test/harness/load"
)

// LoadOptions select the targets of a load.
type LoadOptions struct {
	// APIServers are the targets of Secret operations: create, read, update, read,
	// delete.
	APIServers []*APIServer
	// Plugins are asked to wrap and unwrap seeds, as kube-apiserver does but much more
	// often.
	Plugins []*Trousseau
}

// Pauses between two operations of one worker. They leave CPU time for the servers
// on a machine with two cores.
const (
	secretsPace = 25 * time.Millisecond
	kmsPace     = 10 * time.Millisecond
	kmsWorkers  = 2 // per plugin
)

// operationTimeout bounds one operation on a Secret. kube-apiserver's own bound is
// one minute; most clients give up earlier.
const operationTimeout = 10 * time.Second

// Load runs until stopped. Its methods may be called concurrently.
type Load struct {
	bed          *Bed
	options      LoadOptions
	workers      *load.Workers
	secrets, kms load.Counter
}

// Tally counts a load's operations so far.
type Tally struct {
	// Secrets counts single operations on Secrets. KMS counts round trips, each one
	// Encrypt and one Decrypt.
	Secrets, KMS load.Count
}

// Operations returns the number of all operations, failed or not.
func (t Tally) Operations() int { return t.Secrets.Operations + t.KMS.Operations }

// Failures returns the number of all failed operations.
func (t Tally) Failures() int { return t.Secrets.Failures + t.KMS.Failures }

// StartLoad generates load until [Load.Stop] or the end of the test.
func (b *Bed) StartLoad(o LoadOptions) *Load {
	b.t.Helper()
	l := &Load{bed: b, options: o, workers: load.NewWorkers()}
	ctx, cancel := context.WithCancel(b.ctx)
	// Secrets of an earlier load may still exist.
	prefix := strings.ToLower(rand.Text()[:8])
	for i, s := range o.APIServers {
		l.useSecrets(ctx, s, fmt.Sprintf("load-%s-%d-", prefix, i))
	}
	for _, p := range o.Plugins {
		for range kmsWorkers {
			l.workers.Go(kmsPace, func() { _ = l.kms.Do(ctx, 2*kmsTimeout, p.RoundTrip) })
		}
	}
	b.t.Cleanup(func() {
		// Running operations are cancelled at the end of the test.
		cancel()
		l.workers.Stop()
	})
	return l
}

// Stop waits for running operations to finish and returns the tally.
func (l *Load) Stop() Tally {
	l.workers.Stop()
	return l.Tally()
}

// Tally returns the counts so far.
func (l *Load) Tally() Tally { return Tally{Secrets: l.secrets.Count(), KMS: l.kms.Count()} }

// AwaitMore waits until at least n more operations of each kind have ended, failed
// or not, so that the load has exercised the current state.
func (l *Load) AwaitMore(n int) {
	l.bed.t.Helper()
	before := l.Tally()
	l.bed.Await(time.Minute, "more load", func(context.Context) error {
		now := l.Tally()
		secrets, kms := now.Secrets.Operations-before.Secrets.Operations, now.KMS.Operations-before.KMS.Operations
		if len(l.options.APIServers) > 0 && secrets < n || len(l.options.Plugins) > 0 && kms < n {
			return fmt.Errorf("%d operations on Secrets and %d round trips were made, want %d of each", secrets, kms, n)
		}
		return nil
	})
}

// MustHaveNoFailures ends the test if any operation has failed so far.
func (l *Load) MustHaveNoFailures(when string) {
	l.bed.t.Helper()
	if t := l.Tally(); t.Failures() > 0 {
		l.bed.t.Fatalf("%s: Secrets: %s; KMS: %s", when, t.Secrets, t.KMS)
	}
}

// useSecrets works on one Secret after another. It repeats a failed step, because
// only the number of failures matters.
func (l *Load) useSecrets(ctx context.Context, s *APIServer, prefix string) {
	const steps = 5
	secrets := s.Client.CoreV1().Secrets(metav1.NamespaceDefault)
	var name string
	var value []byte
	read := func(ctx context.Context) error {
		secret, err := secrets.Get(ctx, name, metav1.GetOptions{})
		if err == nil && !bytes.Equal(secret.Data["value"], value) {
			err = errors.New("the Secret read is not the one written")
		}
		return err
	}
	write := func(create bool) func(context.Context) error {
		return func(ctx context.Context) (err error) {
			value = random()
			secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string][]byte{"value": value}}
			if create {
				_, err = secrets.Create(ctx, secret, metav1.CreateOptions{})
			} else {
				_, err = secrets.Update(ctx, secret, metav1.UpdateOptions{})
			}
			return err
		}
	}
	remove := func(ctx context.Context) error { return secrets.Delete(ctx, name, metav1.DeleteOptions{}) }

	step, serial := 0, 0
	l.workers.Go(secretsPace, func() {
		operation := [steps]func(context.Context) error{write(true), read, write(false), read, remove}[step]
		if step == 0 {
			// A failed create may have been stored nevertheless.
			serial++
			name = fmt.Sprintf("%s%d", prefix, serial)
		}
		if l.secrets.Do(ctx, operationTimeout, operation) == nil {
			step = (step + 1) % steps
		}
	})
}

func random() []byte {
	b := make([]byte, 32)
	rand.Read(b)
	return b
}
