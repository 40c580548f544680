// SPDX-License-Identifier: Apache-2.0

package kms_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	kmsapi "k8s.io/kms/apis/v2"

	"github.com/trousseau-io/trousseau/internal/daemon/kms"
	"github.com/trousseau-io/trousseau/internal/fault"
)

// TestDecryptIsShared calls the handler directly, because only then can the test
// know that every caller waits.
func TestDecryptIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const callers, seeds = 2000, 20
		var calls atomic.Int32
		release := make(chan struct{})
		k := working()
		k.decrypt = func(_ context.Context, _ string, c []byte) ([]byte, error) {
			calls.Add(1)
			<-release
			return append([]byte("p-"), c...), nil
		}
		s := server(t, k)
		type answer struct {
			seed int
			resp *kmsapi.DecryptResponse
			err  error
		}
		answers := make(chan answer, callers)
		for i := range callers {
			go func() {
				seed := i % seeds
				resp, err := s.Decrypt(context.Background(), request(seed))
				answers <- answer{seed, resp, err}
			}()
		}
		synctest.Wait()
		if got := calls.Load(); got != seeds {
			t.Errorf("%d calls for %d seeds", got, seeds)
		}
		close(release)
		for range callers {
			a := <-answers
			if want := fmt.Sprintf("p-seed-%d", a.seed); a.err != nil || string(a.resp.GetPlaintext()) != want {
				t.Fatalf("seed %d: %q, %v", a.seed, a.resp.GetPlaintext(), a.err)
			}
		}
	})
}

func TestDecryptOutlivesTheCallerThatBeganIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		k := working()
		k.decrypt = func(ctx context.Context, _ string, c []byte) ([]byte, error) {
			select {
			case <-release:
				return c, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		s := server(t, k)
		first, leave := context.WithCancel(context.Background())
		left, stayed := make(chan error, 1), make(chan error, 1)
		go func() { _, err := s.Decrypt(first, request(0)); left <- err }()
		synctest.Wait()
		go func() { _, err := s.Decrypt(context.Background(), request(0)); stayed <- err }()
		synctest.Wait()
		leave()
		if err := <-left; err == nil {
			t.Error("the cancelled caller was answered")
		}
		close(release)
		if err := <-stayed; err != nil {
			t.Errorf("the remaining caller got %v", err)
		}
	})
}

func TestDecryptFailureOfAnotherIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int32
		release := make(chan struct{})
		k := working()
		k.decrypt = func(_ context.Context, _ string, c []byte) ([]byte, error) {
			if calls.Add(1) == 1 {
				<-release
				return nil, fault.Errorf(fault.Timeout, "the first attempt's time is up")
			}
			return c, nil
		}
		s := server(t, k)
		began, joined := make(chan error, 1), make(chan error, 1)
		go func() { _, err := s.Decrypt(context.Background(), request(0)); began <- err }()
		synctest.Wait()
		go func() { _, err := s.Decrypt(context.Background(), request(0)); joined <- err }()
		synctest.Wait()
		close(release)
		if err := <-began; err == nil {
			t.Error("the caller whose attempt failed was answered")
		}
		if err := <-joined; err != nil {
			t.Errorf("the joined caller got %v", err)
		}
		if got := calls.Load(); got != 2 {
			t.Errorf("%d calls, want 2", got)
		}
	})
}

// server returns a server whose methods are called without a connection.
func server(t *testing.T, k kms.KEK) *kms.Server {
	s := kms.New(kms.Options{KEK: k, RequestTimeout: time.Minute})
	t.Cleanup(func() { s.Shutdown(context.Background()) })
	return s
}

func request(seed int) *kmsapi.DecryptRequest {
	return &kmsapi.DecryptRequest{Ciphertext: fmt.Appendf(nil, "seed-%d", seed), KeyId: keyID}
}
