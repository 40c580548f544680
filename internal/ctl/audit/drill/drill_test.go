// SPDX-License-Identifier: Apache-2.0

package drill_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/internal/ctl/audit/drill"
	"github.com/trousseau-io/trousseau/internal/seed"
)

// unwrapper answers with answer and counts the calls.
type unwrapper struct {
	answer func(call int64, w seed.Wrapped) ([]byte, error)
	calls  atomic.Int64
	now    atomic.Int64
	most   atomic.Int64
	mu     sync.Mutex
	given  [][]byte
}

func (u *unwrapper) Unwrap(_ context.Context, w seed.Wrapped) ([]byte, error) {
	n := u.now.Add(1)
	defer u.now.Add(-1)
	for most := u.most.Load(); n > most && !u.most.CompareAndSwap(most, n); most = u.most.Load() {
	}
	plaintext, err := u.answer(u.calls.Add(1), w)
	u.mu.Lock()
	u.given = append(u.given, plaintext)
	u.mu.Unlock()
	return plaintext, err
}

func seedsNamed(n int) []drill.Seed {
	seeds := make([]drill.Seed, n)
	for i := range seeds {
		seeds[i] = drill.Seed{Wrapped: seed.Wrapped{KeyID: fmt.Sprint(i)}}
	}
	return seeds
}

func good(int64, seed.Wrapped) ([]byte, error) {
	return []byte("0123456789abcdef0123456789abcdef"), nil
}

func run(t *testing.T, opts drill.Options, seeds []drill.Seed) []drill.Result {
	t.Helper()
	opts.Pause = time.Millisecond
	results, err := drill.Run(t.Context(), opts, seeds)
	if err != nil {
		t.Fatal(err)
	}
	return results
}

func TestDrillUnwrapsEachSeedOnce(t *testing.T) {
	u := &unwrapper{answer: good}
	last := 0
	results := run(t, drill.Options{Unwrapper: u, Parallel: 3, Progress: func(done, total int) {
		if done != last+1 || total != 100 {
			t.Errorf("progress %d of %d after %d", done, total, last)
		}
		last = done
	}}, seedsNamed(100))
	for i, r := range results {
		if r != (drill.Result{Verdict: drill.Readable}) {
			t.Errorf("seed %d: %+v", i, r)
		}
	}
	if u.calls.Load() != 100 || u.most.Load() > 3 || last != 100 {
		t.Errorf("%d calls, %d at once, %d told; want 100, at most 3, 100", u.calls.Load(), u.most.Load(), last)
	}
	for _, plaintext := range u.given {
		if strings.Trim(string(plaintext), "\x00") != "" {
			t.Fatal("a seed was left in memory")
		}
	}
}

func TestDrillVerdicts(t *testing.T) {
	lost := &drill.Failure{Verdict: drill.Lost, Reason: "gone"}
	tests := map[string]struct {
		answer func(call int64, w seed.Wrapped) ([]byte, error)
		dek    bool
		want   drill.Result
		calls  int64
	}{
		"lost": {func(int64, seed.Wrapped) ([]byte, error) { return nil, lost }, false, drill.Result{Verdict: drill.Lost, Reason: "gone"}, 1},
		"denied": {func(int64, seed.Wrapped) ([]byte, error) {
			return nil, &drill.Failure{Verdict: drill.Unknown, Reason: "no"}
		}, false, drill.Result{Verdict: drill.Unknown, Reason: "no"}, 1},
		"away for a while": {func(call int64, w seed.Wrapped) ([]byte, error) { return pass(call, 3, w) }, false, drill.Result{Verdict: drill.Readable}, 3},
		"away":             {func(call int64, w seed.Wrapped) ([]byte, error) { return pass(call, 4, w) }, false, drill.Result{Verdict: drill.Unknown, Reason: "away"}, 3},
		"another error":    {func(int64, seed.Wrapped) ([]byte, error) { return nil, errors.New("odd") }, false, drill.Result{Verdict: drill.Unknown, Reason: "odd"}, 3},
		"a seed too short": {func(int64, seed.Wrapped) ([]byte, error) { return make([]byte, 31), nil }, false, drill.Result{Verdict: drill.Lost, Reason: "the unwrapped seed has 31 bytes; a seed has at least 32"}, 1},
		"a DEK":            {func(int64, seed.Wrapped) ([]byte, error) { return make([]byte, 24), nil }, true, drill.Result{Verdict: drill.Readable}, 1},
		"no DEK":           {func(int64, seed.Wrapped) ([]byte, error) { return make([]byte, 33), nil }, true, drill.Result{Verdict: drill.Lost, Reason: "the unwrapped DEK has 33 bytes, which is not the length of an AES key"}, 1},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			u := &unwrapper{answer: test.answer}
			got := run(t, drill.Options{Unwrapper: u}, []drill.Seed{{DEK: test.dek}})[0]
			if got != test.want || u.calls.Load() != test.calls {
				t.Errorf("got %+v after %d calls, want %+v after %d", got, u.calls.Load(), test.want, test.calls)
			}
		})
	}
}

func pass(call, until int64, w seed.Wrapped) ([]byte, error) {
	if call < until {
		return nil, &drill.Failure{Verdict: drill.Unknown, Reason: "away", Passing: true}
	}
	return good(call, w)
}

// If Vault is permanently unavailable, the drill does not ask it for each of a
// million seeds.
func TestDrillGivesUp(t *testing.T) {
	u := &unwrapper{answer: func(call int64, w seed.Wrapped) ([]byte, error) { return pass(call, 1<<40, w) }}
	results := run(t, drill.Options{Unwrapper: u, Parallel: 4}, seedsNamed(10_000))
	if calls := u.calls.Load(); calls > 100 {
		t.Errorf("got %d calls, want none", calls)
	}
	if r := results[9999]; r.Verdict != drill.Unknown || !strings.Contains(r.Reason, "not tried") {
		t.Errorf("the last seed: %+v, want not tried", r)
	}
}

func TestDrillEndsWithItsCaller(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	u := &unwrapper{answer: func(call int64, w seed.Wrapped) ([]byte, error) {
		cancel()
		return pass(1, 2, w)
	}}
	if _, err := drill.Run(ctx, drill.Options{Unwrapper: u, Pause: time.Hour}, seedsNamed(100)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want it canceled", err)
	}
}
