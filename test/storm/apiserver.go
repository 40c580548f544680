// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/util/wait"
	kmsservice "k8s.io/kms/pkg/service"
)

// statusPace is about how often Status is asked until it is ok. kube-apiserver asks
// every 10 s; the times of a storm would be those of that pace.
const statusPace = 250 * time.Millisecond

// apiServer is what a starting kube-apiserver asks its plugin. Use it once.
type apiServer struct {
	kms    kmsservice.Service
	seeds  []seed
	atOnce int
	random *rand.Rand

	proven, decrypted            time.Time
	failedStatus, failedDecrypts atomic.Int64
}

func newAPIServer(seeds []seed, atOnce int, random uint64) *apiServer {
	return &apiServer{seeds: seeds, atOnce: atOnce, random: rand.New(rand.NewPCG(random, random))}
}

var errWrong = errors.New("decrypted seed differs from the encrypted one")

// start asks for Status until it is ok, and for each seed until it is decrypted.
// Neither waits for the other, as in kube-apiserver.
func (a *apiServer) start(ctx context.Context) error {
	order := a.random.Perm(len(a.seeds))
	both, ctx := errgroup.WithContext(ctx)
	both.Go(func() error { return a.awaitStatus(ctx) })
	both.Go(func() error { return a.decryptAll(ctx, order) })
	return both.Wait()
}

// decryptAll lists until every seed is decrypted.
func (a *apiServer) decryptAll(ctx context.Context, left []int) error {
	// Those of client-go's reflector, by which the watch caches list again.
	pause := wait.Backoff{Duration: 800 * time.Millisecond, Cap: 30 * time.Second, Steps: 38, Factor: 2, Jitter: 1}
	for {
		var err error
		switch left, err = a.list(ctx, left); {
		case errors.Is(err, errWrong):
			return err
		case len(left) == 0:
			a.decrypted = time.Now()
			return nil
		case !sleep(ctx, pause.Step()):
			return fmt.Errorf("%d of %d seeds are not decrypted: %w", len(left), len(a.seeds), err)
		}
	}
}

// list decrypts seeds in their order, some at once, until one fails. It returns those
// that are left. The others are in the API server's cache.
func (a *apiServer) list(ctx context.Context, seeds []int) (left []int, err error) {
	var mu sync.Mutex
	var failed atomic.Bool
	var all errgroup.Group
	all.SetLimit(a.atOnce)
	for _, i := range seeds {
		all.Go(func() error {
			err := errors.New("an earlier object failed")
			if !failed.Load() {
				err = a.decrypt(ctx, a.seeds[i])
			}
			if err != nil {
				failed.Store(true)
				mu.Lock()
				left = append(left, i)
				mu.Unlock()
			}
			return err
		})
	}
	err = all.Wait()
	return left, err
}

func (a *apiServer) decrypt(ctx context.Context, s seed) error {
	got, err := a.kms.Decrypt(ctx, "storm", &s.wrapped)
	if err != nil {
		a.failedDecrypts.Add(1)
		return err
	}
	if !bytes.Equal(got, s.plaintext) {
		return errWrong
	}
	return nil
}

func (a *apiServer) awaitStatus(ctx context.Context) error {
	for {
		status, err := a.kms.Status(ctx)
		if err == nil && status.Healthz == "ok" {
			a.proven = time.Now()
			return nil
		}
		a.failedStatus.Add(1)
		if !sleep(ctx, time.Duration((0.5+a.random.Float64())*float64(statusPace))) {
			return fmt.Errorf("status is not ok: %w", errors.Join(err, ctx.Err()))
		}
	}
}

// sleep reports false if ctx is done first.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
