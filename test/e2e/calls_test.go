// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trousseau-io/trousseau/test/harness/load"
	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// calls are made by several callers at a fixed pace until stopped. The result of
// every call is kept, so that it can be assigned to a part of the scenario.
type calls struct {
	bed     *testbed.Bed
	stopped chan struct{}
	once    sync.Once
	callers sync.WaitGroup

	mu   sync.Mutex
	next int
	made []call
}

// call is the result of one call.
type call struct {
	began, ended time.Time
	err          error
}

func (c call) took() time.Duration { return c.ended.Sub(c.began) }

// startCalls calls do with 0, 1, 2 and so on. Each call has a timeout; at the end of
// the test, running calls may finish.
func startCalls(t *testing.T, bed *testbed.Bed, callers int, pace, timeout time.Duration, do func(ctx context.Context, serial int) error) *calls {
	t.Helper()
	c := &calls{bed: bed, stopped: make(chan struct{})}
	for range callers {
		c.callers.Go(func() {
			ticker := time.NewTicker(pace)
			defer ticker.Stop()
			for {
				select {
				case <-c.stopped:
					return
				case <-ticker.C:
					c.make(context.WithoutCancel(t.Context()), timeout, do)
				}
			}
		})
	}
	t.Cleanup(c.stop)
	return c
}

func (c *calls) make(ctx context.Context, timeout time.Duration, do func(context.Context, int) error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	c.mu.Lock()
	serial := c.next
	c.next++
	c.mu.Unlock()
	began := time.Now()
	err := do(ctx, serial)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.made = append(c.made, call{began: began, ended: time.Now(), err: err})
}

// stop waits for running calls to finish.
func (c *calls) stop() {
	c.once.Do(func() { close(c.stopped) })
	c.callers.Wait()
}

// since returns the calls that ended after a time; the zero time means all.
func (c *calls) since(from time.Time) []call {
	c.mu.Lock()
	defer c.mu.Unlock()
	var some []call
	for _, made := range c.made {
		if made.ended.After(from) {
			some = append(some, made)
		}
	}
	return some
}

// count summarizes the calls since a time.
func (c *calls) count(from time.Time) load.Count {
	var sum load.Count
	for _, made := range c.since(from) {
		sum.Add(made.began, made.ended, made.err)
	}
	return sum
}

// awaitMore waits until n calls that begin from now on have ended.
func (c *calls) awaitMore(n int) {
	from := time.Now()
	c.bed.Await(time.Minute, "more calls", func(context.Context) error {
		ended := 0
		for _, made := range c.since(from) {
			if made.began.After(from) {
				ended++
			}
		}
		if ended < n {
			return fmt.Errorf("%d calls have been made, want %d", ended, n)
		}
		return nil
	})
}

// userTimeout is the timeout of a kube-apiserver client.
const userTimeout = 10 * time.Second

// startFirstReads reads Secrets through an API server, one every 25 ms. Each has a
// seed that the server has not seen, as if another API server had just written it,
// so that kube-apiserver must call Trousseau. Each Secret is put into etcd just
// before it is read, because kube-apiserver watches all Secrets and caches their
// seeds. There are n Secrets; a scenario that needs more is wrong.
func startFirstReads(t *testing.T, c *testbed.Cluster, node *testbed.Node, n int) *calls {
	t.Helper()
	sealed := node.Trousseau.SealSecrets("unread-", n)
	secrets := node.APIServer.Client.CoreV1().Secrets(metav1.NamespaceDefault)
	return startCalls(t, c.Bed, 2, 50*time.Millisecond, userTimeout, func(ctx context.Context, serial int) error {
		if serial >= n {
			return errors.New("all Secrets have been read; increase n")
		}
		if err := c.Etcd.Leave(ctx, sealed[serial]); err != nil {
			return err
		}
		_, err := secrets.Get(ctx, sealed[serial].Name, metav1.GetOptions{})
		return err
	})
}
