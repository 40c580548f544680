// SPDX-License-Identifier: Apache-2.0

package migrate

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	typed "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/trousseau-io/trousseau/test/harness/load"
	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

const (
	// seeded is the number of Secrets that no user writes again.
	seeded       = 60
	seededPrefix = "seeded-"
	// written is the number of Secrets that a writer keeps.
	written       = 20
	writtenPrefix = "written-"
	// pace is the pause between two operations of a reader or writer.
	pace = 25 * time.Millisecond
	// timeout bounds an operation, as a client would.
	timeout = 10 * time.Second
)

// unbroken reads and writes Secrets through every API server all the time. A failure of
// any operation fails the test, and names the step. An API server that is restarted is
// left out meanwhile, as by a load balancer.
type unbroken struct {
	t       *testing.T
	servers []*used
	workers *load.Workers
	counter load.Counter

	mu     sync.Mutex
	step   string
	failed error
}

// used is an API server in use.
type used struct {
	*testbed.APIServer
	// away is held for writing while it is restarted, and for reading by its users.
	away sync.RWMutex
	// reads counts how often everything has been read, writes what has been written.
	reads, writes atomic.Int64
}

// startUnbroken seeds Secrets through the first server, and starts a reader and a
// writer for each server until the end of the test.
func startUnbroken(t *testing.T, servers ...*testbed.APIServer) *unbroken {
	t.Helper()
	u := &unbroken{t: t, workers: load.NewWorkers(), step: "begin"}
	seed(t, servers[0], seededPrefix, seeded)
	for _, s := range servers {
		u.servers = append(u.servers, &used{APIServer: s})
	}
	for i, s := range u.servers {
		u.workers.Go(pace, func() { u.readAll(s) })
		w := &writer{unbroken: u, through: s, prefix: fmt.Sprintf("%s%d-", writtenPrefix, i)}
		u.workers.Go(pace, w.write)
	}
	t.Cleanup(u.workers.Stop)
	return u
}

// seed creates Secrets that no user writes again.
func seed(t *testing.T, api *testbed.APIServer, prefix string, n int) {
	t.Helper()
	for i := range n {
		if _, err := secretsOf(api).Create(t.Context(), secret(fmt.Sprint(prefix, i)), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

// begin names the step that failures belong to.
func (u *unbroken) begin(step string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.step = step
}

// mustHold waits until every server has been read completely, and written to, since the
// call, and ends the test if anything has failed so far.
func (u *unbroken) mustHold() {
	u.t.Helper()
	type count struct{ reads, writes int64 }
	var before []count
	for _, s := range u.servers {
		before = append(before, count{s.reads.Load(), s.writes.Load()})
	}
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(pace) {
		u.mu.Lock()
		failed, step := u.failed, u.step
		u.mu.Unlock()
		if failed != nil {
			u.t.Fatal(failed)
		}
		done := true
		for i, s := range u.servers {
			// The first of two may have begun before the call.
			done = done && s.reads.Load() >= before[i].reads+2 && s.writes.Load() >= before[i].writes+2
		}
		if done {
			return
		}
		if time.Now().After(deadline) {
			u.t.Fatalf("%s: not everything was read and written within three minutes", step)
		}
	}
}

// restart restarts a server, which its users notice only as a pause.
func (u *unbroken) restart(api *testbed.APIServer) {
	u.t.Helper()
	for _, s := range u.servers {
		if s.APIServer == api {
			s.away.Lock()
			defer s.away.Unlock()
		}
	}
	api.Restart()
}

// count returns the numbers of operations and of failures so far.
func (u *unbroken) count() (operations, failures int) {
	c := u.counter.Count()
	return c.Operations, c.Failures
}

// do counts an operation through a server, and reports whether it was tried: not while
// the server is away.
func (u *unbroken) do(s *used, what string, operation func(context.Context, typed.SecretInterface) error) bool {
	if !s.away.TryRLock() {
		return false
	}
	defer s.away.RUnlock()
	// The test's context is done before its cleanup has stopped the users.
	ctx := context.WithoutCancel(u.t.Context())
	err := u.counter.Do(ctx, timeout, func(ctx context.Context) error { return operation(ctx, secretsOf(s.APIServer)) })
	if err == nil {
		return true
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.failed == nil {
		u.failed = fmt.Errorf("step %q: %s through %s: %w", u.step, what, s.Name, err)
		u.t.Error(u.failed)
	}
	return true
}

// readAll reads every Secret: from the server's cache, and then each one from etcd.
func (u *unbroken) readAll(s *used) {
	var names []string
	for _, version := range []string{"0", ""} {
		listed := u.do(s, "list", func(ctx context.Context, secrets typed.SecretInterface) error {
			all, err := secrets.List(ctx, metav1.ListOptions{ResourceVersion: version})
			if err != nil {
				return err
			}
			if len(all.Items) < seeded {
				return fmt.Errorf("%d Secrets, want at least %d", len(all.Items), seeded)
			}
			names = names[:0]
			for _, secret := range all.Items {
				if err := check(&secret); err != nil {
					return err
				}
				names = append(names, secret.Name)
			}
			return nil
		})
		if !listed {
			return
		}
	}
	for _, name := range names {
		if !u.do(s, "get", func(ctx context.Context, secrets typed.SecretInterface) error {
			err := get(ctx, secrets, name)
			if apierrors.IsNotFound(err) && strings.HasPrefix(name, writtenPrefix) {
				err = nil // its writer has deleted it since
			}
			return err
		}) {
			return
		}
	}
	s.reads.Add(1)
}

// writer creates a Secret, updates another one, and deletes a third one, in turn. What it
// has written, every server must have at once.
type writer struct {
	*unbroken
	through *used
	prefix  string
	serial  int
}

func (w *writer) write() {
	w.serial++
	name := func(n int) string { return fmt.Sprint(w.prefix, n) }
	fresh, older, oldest := name(w.serial), name(max(1, w.serial-written/2)), name(w.serial-written)
	done := w.do(w.through, "create "+fresh, func(ctx context.Context, secrets typed.SecretInterface) error {
		_, err := secrets.Create(ctx, secret(fresh), metav1.CreateOptions{})
		return err
	})
	if !done {
		w.serial-- // this one was not created
		return
	}
	w.do(w.through, "update "+older, func(ctx context.Context, secrets typed.SecretInterface) error {
		_, err := secrets.Update(ctx, secret(older), metav1.UpdateOptions{})
		return err
	})
	for _, s := range w.servers {
		for _, name := range []string{fresh, older} {
			w.do(s, "get "+name+", written through "+w.through.Name+",", func(ctx context.Context, secrets typed.SecretInterface) error {
				return get(ctx, secrets, name)
			})
		}
	}
	if w.serial > written {
		w.do(w.through, "delete "+oldest, func(ctx context.Context, secrets typed.SecretInterface) error {
			return secrets.Delete(ctx, oldest, metav1.DeleteOptions{})
		})
	}
	w.through.writes.Add(1)
}

// secret returns a Secret whose value is its name.
func secret(name string) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"written": strings.ToLower(rand.Text())}},
		Data:       map[string][]byte{"name": []byte(name)},
	}
}

// get reads a Secret from etcd, and checks its value.
func get(ctx context.Context, secrets typed.SecretInterface, name string) error {
	s, err := secrets.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	return check(s)
}

func check(s *corev1.Secret) error {
	if got := string(s.Data["name"]); got != s.Name {
		return fmt.Errorf("the Secret %s reads %q", s.Name, got)
	}
	return nil
}

func secretsOf(s *testbed.APIServer) typed.SecretInterface {
	return s.Client.CoreV1().Secrets(metav1.NamespaceDefault)
}
