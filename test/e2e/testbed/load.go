// SPDX-License-Identifier: Apache-2.0

package testbed

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// LoadOptions say on what a load is put.
type LoadOptions struct {
	// APIServers have Secrets created, read, updated, read and deleted.
	APIServers []*APIServer
	// Plugins have seeds wrapped and unwrapped, as kube-apiserver does but much
	// more often.
	Plugins []*Trousseau
}

// The pauses between two operations of one worker, so that two cores are left
// with something for the servers.
const (
	secretsPace = 25 * time.Millisecond
	kmsPace     = 10 * time.Millisecond
	kmsWorkers  = 2 // per plugin
)

// operationTimeout bounds one operation on a Secret. kube-apiserver's own bound
// is a minute; a user has given up by then.
const operationTimeout = 10 * time.Second

// Load works until stopped. Its methods may be called concurrently.
type Load struct {
	bed     *Bed
	options LoadOptions
	stop    chan struct{}
	once    sync.Once
	workers sync.WaitGroup

	mu    sync.Mutex
	tally Tally
}

// Tally is what a load has done so far.
type Tally struct {
	// Secrets counts single operations on Secrets; KMS counts round trips of
	// one Encrypt and one Decrypt.
	Secrets, KMS Count
}

// Operations is the number of all operations, failed or not.
func (t Tally) Operations() int { return t.Secrets.Operations + t.KMS.Operations }

// Failures is the number of all that failed.
func (t Tally) Failures() int { return t.Secrets.Failures + t.KMS.Failures }

// Count counts operations of one kind.
type Count struct {
	Operations, Failures int
	// First is the first failure's error.
	First error
	// FirstFailure and LastFailure are when such operations ended.
	FirstFailure, LastFailure time.Time
	// Longest is the longest time that one took, failed or not.
	Longest time.Duration
}

func (c Count) String() string {
	if c.Failures == 0 {
		return fmt.Sprintf("0 of %d failed, the longest took %s", c.Operations, c.Longest.Round(time.Millisecond))
	}
	return fmt.Sprintf("%d of %d failed within %s, the longest took %s; the first: %v", c.Failures, c.Operations,
		c.LastFailure.Sub(c.FirstFailure).Round(time.Millisecond), c.Longest.Round(time.Millisecond), c.First)
}

// StartLoad puts a load on servers until [Load.Stop] or the end of the test.
func (b *Bed) StartLoad(o LoadOptions) *Load {
	b.t.Helper()
	l := &Load{bed: b, options: o, stop: make(chan struct{})}
	ctx, cancel := context.WithCancel(b.ctx)
	// A load before this one may have left its last Secrets behind.
	prefix := strings.ToLower(rand.Text()[:8])
	for i, s := range o.APIServers {
		l.workers.Go(func() { l.useSecrets(ctx, s, fmt.Sprintf("load-%s-%d-", prefix, i)) })
	}
	for _, p := range o.Plugins {
		for range kmsWorkers {
			l.workers.Go(func() { l.useKMS(ctx, p) })
		}
	}
	b.t.Cleanup(func() {
		l.once.Do(func() { close(l.stop) })
		cancel()
		l.workers.Wait()
	})
	return l
}

// Stop lets every operation under way finish, and returns what was done.
func (l *Load) Stop() Tally {
	l.once.Do(func() { close(l.stop) })
	l.workers.Wait()
	return l.Tally()
}

// Tally is what was done so far.
func (l *Load) Tally() Tally {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tally
}

// AwaitMore waits until at least n more operations of each kind have been made,
// failed or not, so that something has been seen of the state that is now.
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

// MustHaveNoFailures ends the test if an operation has failed so far.
func (l *Load) MustHaveNoFailures(when string) {
	l.bed.t.Helper()
	if t := l.Tally(); t.Failures() > 0 {
		l.bed.t.Fatalf("%s: Secrets: %s; KMS: %s", when, t.Secrets, t.KMS)
	}
}

// do makes and counts one operation.
func (l *Load) do(ctx context.Context, count func(*Tally) *Count, timeout time.Duration, operation func(context.Context) error) bool {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	began := time.Now()
	err := operation(ctx)
	ended := time.Now()

	l.mu.Lock()
	defer l.mu.Unlock()
	c := count(&l.tally)
	c.Operations++
	c.Longest = max(c.Longest, ended.Sub(began))
	if err == nil {
		return true
	}
	if c.Failures == 0 {
		c.First, c.FirstFailure = err, ended
	}
	c.Failures++
	c.LastFailure = ended
	return false
}

// paced calls step at a pace until the load is stopped.
func (l *Load) paced(every time.Duration, step func()) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-l.stop:
			return
		case <-ticker.C:
			step()
		}
	}
}

func (l *Load) useKMS(ctx context.Context, p *Trousseau) {
	l.paced(kmsPace, func() {
		l.do(ctx, func(t *Tally) *Count { return &t.KMS }, 2*kmsTimeout, p.RoundTrip)
	})
}

// useSecrets works on one Secret after the other. A step that fails is
// repeated: what matters is how many do.
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
	l.paced(secretsPace, func() {
		operation := [steps]func(context.Context) error{write(true), read, write(false), read, remove}[step]
		if step == 0 {
			// A create that failed may yet have been stored.
			serial++
			name = fmt.Sprintf("%s%d", prefix, serial)
		}
		if l.do(ctx, func(t *Tally) *Count { return &t.Secrets }, operationTimeout, operation) {
			step = (step + 1) % steps
		}
	})
}

func random() []byte {
	b := make([]byte, 32)
	rand.Read(b)
	return b
}
