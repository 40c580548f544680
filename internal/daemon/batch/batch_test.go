// SPDX-License-Identifier: Apache-2.0

package batch_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/trousseau-io/trousseau/internal/daemon/batch"
	"github.com/trousseau-io/trousseau/internal/fault"
	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
	"github.com/trousseau-io/trousseau/internal/vault"
)

// bench is a queue with a fake Vault, without a network, in a synctest bubble. A call takes no time unless a test
// injects a delay.
type bench struct {
	t        *testing.T
	vault    *vaulttest.Server
	key      *vaulttest.Key
	client   *vault.Client
	queue    *batch.Queue
	registry *prometheus.Registry
	encrypt  *batch.Line
	decrypt  *batch.Line

	mu      sync.Mutex
	calls   []call
	refused []error
}

// call is what Vault has been asked in one call.
type call struct {
	op    string
	items []string // plaintexts in base64, or ciphertexts
	batch bool
}

func run(t *testing.T, limit int, test func(*bench)) {
	synctest.Test(t, func(t *testing.T) { test(newBench(t, limit)) })
}

func newBench(t *testing.T, limit int) *bench {
	b := &bench{t: t, vault: vaulttest.Start(t, vaulttest.Options{InProcess: true}), registry: prometheus.NewPedanticRegistry()}
	b.key = b.vault.CreateKey("kek")
	b.key.Rotate()
	nodes, err := vault.Dial(vault.Config{
		Addresses: []string{"http://vault:8200"}, Mount: "transit",
		Credential: vault.Given(b.vault.KMSToken("kek")), Transport: b.vault.RoundTripper(),
	})
	if err != nil {
		t.Fatal(err)
	}
	b.client = nodes[0]
	b.queue = batch.New(limit, b.registry)
	refused := func(err error) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.refused = append(b.refused, err)
	}
	b.encrypt, b.decrypt = b.queue.Encrypt(b.client, "kek", refused), b.queue.Decrypt(b.client, "kek", refused)
	b.vault.Intercept(func(op string, _ http.ResponseWriter, r *http.Request) bool {
		type item struct{ Plaintext, Ciphertext string }
		var body struct {
			Batch *[]item `json:"batch_input"`
			item
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Errorf("the body of %s: %v", op, err)
		}
		c := call{op: op, batch: body.Batch != nil}
		items := []item{body.item}
		if c.batch {
			items = *body.Batch
		}
		for _, i := range items {
			c.items = append(c.items, i.Plaintext+i.Ciphertext)
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		b.calls = append(b.calls, c)
		return false
	})
	return b
}

// made returns how many items each call to Vault had; 0 is one in the single form.
func (b *bench) made() (sizes []int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.calls {
		switch {
		case c.batch:
			sizes = append(sizes, len(c.items))
		default:
			sizes = append(sizes, 0)
		}
	}
	return sizes
}

func (b *bench) wantCalls(want ...int) {
	b.t.Helper()
	if got := b.made(); !slices.Equal(got, want) {
		b.t.Errorf("got calls of %v items, want %v", got, want)
	}
}

func (b *bench) wantLoad(underWay, waiting int) {
	b.t.Helper()
	synctest.Wait()
	if u, w := b.queue.Load(); u != underWay || w != waiting {
		b.t.Errorf("got %d calls under way and %d requests waiting, want %d and %d", u, w, underWay, waiting)
	}
}

// hang makes the calls that begin from now on wait until release.
func (b *bench) hang() (release func()) { return b.vault.Hang() }

// wrapped encrypts a seed for a test, outside the queue.
func (b *bench) wrapped(plaintext, associated string) vault.Item {
	b.t.Helper()
	ciphertext, _, err := b.client.Encrypt(b.t.Context(), "kek", 0, []byte(plaintext), []byte(associated))
	if err != nil {
		b.t.Fatal(err)
	}
	return vault.Item{Data: ciphertext, AssociatedData: []byte(associated)}
}

// forget forgets the calls so far.
func (b *bench) forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls = nil
}

// request is a request in another goroutine. Its results may be read after wait.
type request struct {
	data   []byte
	err    error
	took   time.Duration
	cancel func()
	ended  chan struct{}
}

// begin makes a request, and returns when it is under way or waits. timeout 0 means none.
func (b *bench) begin(l *batch.Line, item vault.Item, timeout time.Duration) *request {
	ctx, cancel := context.WithCancel(b.t.Context())
	if timeout > 0 {
		ctx, cancel = context.WithTimeout(b.t.Context(), timeout)
	}
	r := &request{cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(r.ended)
		defer cancel()
		began := time.Now()
		r.data, r.err = l.Do(ctx, item)
		r.took = time.Since(began)
	}()
	synctest.Wait()
	return r
}

// beginMany begins n encryptions of "0", "1", ….
func (b *bench) beginMany(n int, timeout time.Duration) (requests []*request) {
	for i := range n {
		requests = append(requests, b.begin(b.encrypt, vault.Item{Data: fmt.Append(nil, i)}, timeout))
	}
	return requests
}

func (r *request) wait() error { <-r.ended; return r.err }

func wantClasses(t *testing.T, requests []*request, want fault.Class) {
	t.Helper()
	for i, r := range requests {
		if err := r.wait(); fault.ClassOf(err) != want {
			t.Errorf("request %d: got class %q, want %q (%v)", i, fault.ClassOf(err), want, err)
		}
	}
}

// reads reports an error unless r's ciphertext is that of plaintext.
func (b *bench) reads(r *request, plaintext, associated string) {
	b.t.Helper()
	if err := r.wait(); err != nil {
		b.t.Errorf("%q: %v", plaintext, err)
		return
	}
	got, err := b.client.Decrypt(b.t.Context(), "kek", r.data, []byte(associated))
	if err != nil || string(got) != plaintext {
		b.t.Errorf("got the ciphertext of %q (%v), want that of %q", got, err, plaintext)
	}
}

func TestIdleGoesAlone(t *testing.T) {
	run(t, 1, func(b *bench) {
		for range 3 {
			r := b.begin(b.encrypt, vault.Item{Data: []byte("seed"), Version: 1, AssociatedData: []byte("a")}, 0)
			b.reads(r, "seed", "a")
			if v, _ := vault.CiphertextVersion(r.data); v != 1 || r.took != 0 {
				t.Errorf("got version %d after %v", v, r.took)
			}
			plain := b.begin(b.decrypt, vault.Item{Data: r.data, AssociatedData: []byte("a")}, 0)
			if err := plain.wait(); err != nil || string(plain.data) != "seed" {
				t.Errorf("got %q, %v", plain.data, err)
			}
		}
		b.wantCalls(make([]int, 9)...) // with those of reads
		b.wantLoad(0, 0)
	})
}

func TestWaitersShareTheNextCall(t *testing.T) {
	run(t, 2, func(b *bench) {
		release := b.hang()
		requests := b.beginMany(22, 0)
		b.wantLoad(2, 20)
		b.wantCalls(0, 0)
		release()
		wantClasses(t, requests, "")
		b.wantCalls(0, 0, 20)
		for i, r := range requests {
			b.reads(r, fmt.Sprint(i), "")
		}
		b.wantLoad(0, 0)
		want := `
			# HELP trousseau_vault_batch_items Requests that shared one call to Vault, by operation; 1 is a request that went alone.
			# TYPE trousseau_vault_batch_items histogram
			trousseau_vault_batch_items_bucket{operation="encrypt",le="1"} 2
			trousseau_vault_batch_items_bucket{operation="encrypt",le="2"} 2
			trousseau_vault_batch_items_bucket{operation="encrypt",le="4"} 2
			trousseau_vault_batch_items_bucket{operation="encrypt",le="8"} 2
			trousseau_vault_batch_items_bucket{operation="encrypt",le="16"} 2
			trousseau_vault_batch_items_bucket{operation="encrypt",le="32"} 3
			trousseau_vault_batch_items_bucket{operation="encrypt",le="64"} 3
			trousseau_vault_batch_items_bucket{operation="encrypt",le="128"} 3
			trousseau_vault_batch_items_bucket{operation="encrypt",le="256"} 3
			trousseau_vault_batch_items_bucket{operation="encrypt",le="+Inf"} 3
			trousseau_vault_batch_items_sum{operation="encrypt"} 22
			trousseau_vault_batch_items_count{operation="encrypt"} 3
		`
		if err := testutil.GatherAndCompare(b.registry, strings.NewReader(want)); err != nil {
			t.Error(err)
		}
	})
}

// One that waits alone goes in the single form too.
func TestOneWaiter(t *testing.T) {
	run(t, 1, func(b *bench) {
		release := b.hang()
		requests := b.beginMany(2, 0)
		release()
		wantClasses(t, requests, "")
		b.wantCalls(0, 0)
	})
}

// Nobody waits for a batch to fill: each call takes what has come during the one before.
func TestBatchesDoNotFill(t *testing.T) {
	run(t, 1, func(b *bench) {
		b.vault.Inject(vaulttest.Fault{Delay: 10 * time.Millisecond})
		var requests []*request
		for _, n := range []int{3, 5, 2} {
			requests = append(requests, b.beginMany(n, 0)...)
			time.Sleep(10 * time.Millisecond)
			synctest.Wait()
		}
		wantClasses(t, requests, "")
		b.wantCalls(0, 2, 5, 2)
		for i, want := range []int{10, 20, 20, 20, 20, 20, 20, 20, 20, 20} {
			if got := requests[i].took; got != time.Duration(want)*time.Millisecond {
				t.Errorf("request %d took %v, want %d ms", i, got, want)
			}
		}
	})
}

func TestBounds(t *testing.T) {
	const kib = 1 << 10
	tests := map[string]struct {
		sizes []int // of the items that wait
		want  []int
	}{
		"items":           {make([]int, 600), []int{0, 256, 256, 88}},
		"exactly":         {make([]int, 256), []int{0, 256}},
		"one more":        {make([]int, 257), []int{0, 256, 0}},
		"bytes":           {[]int{100 * kib, 100 * kib, 100 * kib, 56 * kib, 100 * kib}, []int{0, 2, 3}},
		"bytes, exactly":  {[]int{128 * kib, 128 * kib, 1}, []int{0, 2, 0}},
		"one is too much": {[]int{300 * kib, 1, 300 * kib, 300 * kib}, []int{0, 0, 0, 0, 0}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			run(t, 1, func(b *bench) {
				release := b.hang()
				requests := b.beginMany(1, 0)
				for _, size := range test.sizes {
					requests = append(requests, b.begin(b.encrypt, vault.Item{Data: make([]byte, size)}, 0))
				}
				release()
				wantClasses(t, requests, "")
				b.wantCalls(test.want...)
				b.wantLoad(0, 0)
			})
		})
	}
}

// TestLinesTakeTurns has an Encrypt beside a storm of Decrypts, which never ends and
// fills every call. It waits for the call under way and for one more.
func TestLinesTakeTurns(t *testing.T) {
	const took = 10 * time.Millisecond
	run(t, 1, func(b *bench) {
		seed := b.wrapped("seed", "")
		b.vault.Inject(vaulttest.Fault{Delay: took})
		storm, stop := context.WithCancel(b.t.Context())
		var all sync.WaitGroup
		for range 600 {
			all.Go(func() {
				for storm.Err() == nil {
					if _, err := b.decrypt.Do(b.t.Context(), seed); err != nil {
						t.Error(err)
					}
				}
			})
		}
		for range 20 {
			time.Sleep(took * 13 / 4)
			synctest.Wait()
			r := b.begin(b.encrypt, vault.Item{Data: []byte("x")}, 0)
			if err := r.wait(); err != nil || r.took > 3*took {
				t.Errorf("%v after %v, want at most two calls of %v and its own", err, r.took, took)
			}
		}
		stop()
		all.Wait()
		b.wantLoad(0, 0)
	})
}

// TestFifo checks that of more requests than a call may hold, the oldest go first.
func TestFifo(t *testing.T) {
	run(t, 1, func(b *bench) {
		b.vault.Inject(vaulttest.Fault{Delay: time.Second})
		for i, r := range b.beginMany(1+256+10, 0) {
			want := time.Second
			switch {
			case i > 256:
				want = 3 * time.Second
			case i > 0:
				want = 2 * time.Second
			}
			if err := r.wait(); err != nil || r.took != want {
				t.Errorf("request %d: %v after %v, want %v", i, err, r.took, want)
			}
		}
	})
}

func TestCallerGivesUp(t *testing.T) {
	run(t, 1, func(b *bench) {
		release := b.hang()
		requests := b.beginMany(6, 0)
		// Before the call, each in its own way.
		requests[2].cancel()
		wantClasses(t, requests[2:3], fault.Canceled)
		late := b.begin(b.encrypt, vault.Item{Data: []byte("late")}, time.Second)
		wantClasses(t, []*request{late}, fault.Timeout)
		b.wantLoad(1, 4)
		again := b.hang()
		release()
		synctest.Wait()
		b.wantCalls(0, 4)
		// During the call.
		requests[4].cancel()
		wantClasses(t, requests[4:5], fault.Canceled)
		// The first of a call is one like the others.
		requests[1].cancel()
		wantClasses(t, requests[1:2], fault.Canceled)
		b.wantLoad(1, 0)
		next := b.begin(b.encrypt, vault.Item{Data: []byte("next")}, 0)
		again()
		for _, i := range []int{0, 3, 5} {
			b.reads(requests[i], fmt.Sprint(i), "")
		}
		b.reads(next, "next", "")
		b.wantLoad(0, 0)
	})
}

// A call for requests that have all been given up is not made.
func TestAllGiveUp(t *testing.T) {
	run(t, 1, func(b *bench) {
		release := b.hang()
		requests := b.beginMany(5, 0)
		for _, r := range requests[1:] {
			r.cancel()
		}
		b.wantLoad(1, 0)
		release()
		wantClasses(t, requests[1:], fault.Canceled)
		wantClasses(t, requests[:1], "")
		b.wantCalls(0)
		b.wantLoad(0, 0)
	})
}

// What has been cut while it waited is not sent later: its caller has tried again.
func TestCutRequestIsNotSent(t *testing.T) {
	run(t, 1, func(b *bench) {
		release := b.hang()
		first := b.beginMany(1, 0)
		ctx, cancel := context.WithTimeout(b.t.Context(), 5*time.Second)
		defer cancel()
		if _, err := b.encrypt.Do(ctx, vault.Item{}); fault.ClassOf(err) != fault.Timeout || ctx.Err() != nil {
			t.Errorf("got %v", err)
		}
		b.wantLoad(1, 0)
		release()
		wantClasses(t, first, "")
		b.wantLoad(0, 0)
		b.wantCalls(0)
	})
}

// A call for one request ends when its caller gives up, as if it had not waited.
func TestLoneWaiterGivesUp(t *testing.T) {
	run(t, 1, func(b *bench) {
		release := b.hang()
		requests := b.beginMany(2, 0)
		b.hang()
		release()
		b.wantLoad(1, 0)
		requests[1].cancel()
		wantClasses(t, requests[1:], fault.Canceled)
		b.wantLoad(0, 0)
	})
}

// Each request has its own deadline, also one that shares a call.
func TestDeadlines(t *testing.T) {
	run(t, 1, func(b *bench) {
		b.vault.Inject(vaulttest.Fault{Delay: time.Second})
		first := b.begin(b.encrypt, vault.Item{Data: []byte("x")}, 0)
		hurried := b.begin(b.encrypt, vault.Item{Data: []byte("hurried")}, 1700*time.Millisecond)
		patient := b.begin(b.encrypt, vault.Item{Data: []byte("patient")}, 3*time.Second)
		wantClasses(t, []*request{first}, "")
		wantClasses(t, []*request{hurried}, fault.Timeout)
		if hurried.took != 1700*time.Millisecond {
			t.Errorf("gave up after %v", hurried.took)
		}
		if err := patient.wait(); err != nil || patient.took != 2*time.Second {
			t.Errorf("%v after %v", err, patient.took)
		}
		b.wantCalls(0, 2)
	})
}

// TestCut has a Vault that hangs: a call may take three fifths of the time left, so that there is time for another one.
func TestCut(t *testing.T) {
	tests := map[string]struct {
		timeout, want time.Duration
	}{
		"divided":     {5 * time.Second, 3 * time.Second},
		"undivided":   {time.Second, time.Second},
		"no deadline": {0, 30 * time.Second},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			run(t, 1, func(b *bench) {
				b.hang()
				first := b.begin(b.encrypt, vault.Item{}, test.timeout)
				second := b.begin(b.encrypt, vault.Item{}, test.timeout)
				for what, r := range map[string]*request{"under way": first, "waiting": second} {
					if err := r.wait(); fault.ClassOf(err) != fault.Timeout || r.took != test.want {
						t.Errorf("%s: %v after %v, want %v", what, err, r.took, test.want)
					}
				}
			})
		})
	}
}

// TestCutOfABatch has a call that begins late in the time of its requests, and hangs.
func TestCutOfABatch(t *testing.T) {
	run(t, 1, func(b *bench) {
		b.vault.Inject(vaulttest.Fault{Times: 1, Delay: 2 * time.Second})
		b.begin(b.encrypt, vault.Item{}, 0)
		requests := []*request{
			b.begin(b.encrypt, vault.Item{}, 12*time.Second),
			b.begin(b.encrypt, vault.Item{}, 7*time.Second),
		}
		b.hang()
		wantClasses(t, requests, fault.Timeout)
		// Of the 10 s and 5 s that are left when the call begins.
		for i, want := range []time.Duration{2*time.Second + 6*time.Second, 2*time.Second + 3*time.Second} {
			if requests[i].took != want {
				t.Errorf("request %d was cut after %v, want %v", i, requests[i].took, want)
			}
		}
		b.wantLoad(0, 0)
	})
}

// A Vault that answers others does not hang: one that waits is not cut.
func TestWaitingIsNotCut(t *testing.T) {
	run(t, 1, func(b *bench) {
		b.vault.Inject(vaulttest.Fault{Delay: time.Second})
		b.beginMany(1+2*256, 0)
		r := b.begin(b.encrypt, vault.Item{}, 4900*time.Millisecond)
		if err := r.wait(); err != nil || r.took != 4*time.Second {
			t.Errorf("%v after %v", err, r.took)
		}
	})
}

// The call ends with the last deadline, so that a Vault that hangs does not keep its place.
func TestCallEndsWithItsLastDeadline(t *testing.T) {
	run(t, 1, func(b *bench) {
		b.hang()
		first := b.begin(b.encrypt, vault.Item{Data: []byte("x")}, time.Second)
		waiting := []*request{
			b.begin(b.encrypt, vault.Item{Data: []byte("x")}, 3*time.Second),
			b.begin(b.encrypt, vault.Item{Data: []byte("x")}, 2*time.Second),
		}
		wantClasses(t, append(waiting, first), fault.Timeout)
		b.wantLoad(0, 0)
	})
}

// TestTimeoutOrOverloaded tells a Vault that hangs from one that cannot keep up.
func TestTimeoutOrOverloaded(t *testing.T) {
	const doing = "encrypting with transit/kek at http://vault:8200: "
	tests := map[string]struct {
		begin func(b *bench) *request
		class fault.Class
		text  string
	}{
		"no call ends": {func(b *bench) *request {
			b.hang()
			b.beginMany(1, 0)
			return b.begin(b.encrypt, vault.Item{}, time.Second)
		}, fault.Timeout, "vault did not answer in time"},
		"its call does not end": {func(b *bench) *request {
			release := b.hang()
			b.beginMany(2, 0)
			r := b.begin(b.encrypt, vault.Item{}, time.Second)
			b.hang()
			release()
			return r
		}, fault.Timeout, "vault did not answer in time"},
		"its call, for it alone, does not end": {func(b *bench) *request {
			release := b.hang()
			b.beginMany(1, 0)
			r := b.begin(b.encrypt, vault.Item{}, time.Second)
			b.hang()
			release()
			return r
		}, fault.Timeout, "vault did not answer in time"},
		"its turn does not come": {func(b *bench) *request {
			b.vault.Inject(vaulttest.Fault{Delay: 400 * time.Millisecond})
			b.beginMany(1+2*256, 0)
			return b.begin(b.encrypt, vault.Item{}, time.Second)
		}, fault.Overloaded, "concurrency limit (1) reached; timed out waiting"},
		"it is canceled": {func(b *bench) *request {
			b.hang()
			b.beginMany(1, 0)
			r := b.begin(b.encrypt, vault.Item{}, time.Second)
			r.cancel()
			return r
		}, fault.Canceled, "canceled by the caller"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			run(t, 1, func(b *bench) {
				r := test.begin(b)
				if err := r.wait(); fault.ClassOf(err) != test.class || err.Error() != doing+test.text {
					t.Errorf("got %q, %v; want %q, %s", fault.ClassOf(err), err, test.class, test.text)
				}
				b.vault.ClearFaults()
				b.wantLoad(0, 0)
			})
		})
	}
}

// isBatch matches the calls with batch_input.
func isBatch(_ string, r *http.Request) bool {
	body, err := io.ReadAll(r.Body)
	return err == nil && strings.Contains(string(body), `"batch_input"`)
}

func isSingle(op string, r *http.Request) bool { return !isBatch(op, r) }

// TestWholeBatchFails has faults that are not about one item. Each request gets the class, and the batch is not made
// again as single calls.
func TestWholeBatchFails(t *testing.T) {
	const requests = 50
	tests := map[string]struct {
		fault vaulttest.Fault
		class fault.Class
		calls []int
	}{
		"500":       {vaulttest.Fault{Status: 500}, fault.Unavailable, []int{0, requests}},
		"502":       {vaulttest.Fault{Status: 502, Body: "<html>"}, fault.Unavailable, []int{0, requests}},
		"sealed":    {vaulttest.Fault{Status: 503, Body: `{"errors":["Vault is sealed"]}`}, fault.Sealed, []int{0, requests}},
		"throttled": {vaulttest.Fault{Status: 429}, fault.Throttled, []int{0, requests}},
		"reset":     {vaulttest.Fault{Cut: vaulttest.CutReset}, fault.Unavailable, []int{0, requests}},
		"cut":       {vaulttest.Fault{Cut: vaulttest.CutBody}, fault.Unavailable, []int{0, requests}},
		"hangs":     {vaulttest.Fault{Hang: true}, fault.Timeout, []int{0, requests}},
		// A single call tells what the refusal is about.
		"denied":   {vaulttest.Fault{Status: 403, Body: `{"errors":["permission denied"]}`}, fault.Denied, []int{0, requests, 0}},
		"key lost": {vaulttest.Fault{Status: 400, Body: `{"errors":["encryption key not found"]}`}, fault.KeyLost, []int{0, requests, 0}},
		"page":     {vaulttest.Fault{Status: 403, Body: "<html>"}, fault.Unavailable, []int{0, requests, 0}},
		"413":      {vaulttest.Fault{Status: 413}, fault.Unavailable, []int{0, requests, 0}},
		"portal":   {vaulttest.Fault{Status: 200, Body: "<html>"}, fault.Unavailable, []int{0, requests}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			run(t, 1, func(b *bench) {
				release := b.hang()
				first := b.beginMany(1, 0)
				rest := b.beginMany(requests, 3*time.Second)
				remove := b.vault.Inject(test.fault)
				release()
				wantClasses(t, rest, test.class)
				if class := fault.ClassOf(first[0].wait()); class != "" && class != test.class {
					t.Errorf("the first: %v", first[0].err)
				}
				b.wantCalls(test.calls...)
				for i, r := range rest {
					var refused *vault.BatchRefused
					if errors.As(r.err, &refused) {
						t.Errorf("request %d: got the batch's error", i)
					}
				}
				remove()
				b.wantLoad(0, 0)
				if len(b.refused) > 0 {
					t.Errorf("taken for a Vault without batches: %v", b.refused)
				}
			})
		})
	}
}

// TestBatchesAreNotTaken has a policy, a proxy and a server that take single items only: that is found out once, all
// requests are served, and no batch is tried again.
func TestBatchesAreNotTaken(t *testing.T) {
	tests := map[string]vaulttest.Fault{
		"policy":     {Status: 403, Body: `{"errors":["1 error occurred:\n\t* permission denied\n\n"]}`},
		"proxy":      {Status: 413, Body: "<html>"},
		"firewall":   {Status: 403, Body: "<html>"},
		"old server": {Status: 400, Body: `{"errors":["missing plaintext to encrypt"]}`},
		"stripped":   {Status: 200, Body: `{"data":{"ciphertext":"vault:v2:AAAA"}}`},
	}
	for name, refusal := range tests {
		t.Run(name, func(t *testing.T) {
			run(t, 2, func(b *bench) {
				refusal.Match = isBatch
				b.vault.Inject(refusal)
				b.vault.Inject(vaulttest.Fault{Delay: time.Millisecond})
				requests := b.beginMany(32, 0)
				for i, r := range requests {
					b.reads(r, fmt.Sprint(i), "")
				}
				synctest.Wait()
				if len(b.refused) != 1 {
					t.Errorf("reported %d times", len(b.refused))
				}
				var batches int
				for _, size := range b.made() {
					if size > 0 {
						batches++
					}
				}
				// That it is not the moment costs a second one.
				if batches != 2 {
					t.Errorf("got calls of %v items, want two batches", b.made())
				}
				b.forget()
				for i, r := range b.beginMany(20, 0) {
					b.reads(r, fmt.Sprint(i), "")
				}
				if got := b.made(); slices.Max(got) > 0 {
					t.Errorf("later: got calls of %v items", got)
				}
				b.wantLoad(0, 0)
			})
		})
	}
}

// The item that is sent alone may be a bad one: that says as much of batches.
func TestBatchesAreNotTakenAndAnItemIsBad(t *testing.T) {
	for name, test := range map[string]struct {
		ciphertext string
		class      fault.Class
	}{
		"malformed": {"x", fault.Invalid},
		"too new":   {"vault:v9:AAAA", fault.VersionTooNew},
		"too old":   {"vault:v1:AAAA", fault.VersionTooOld},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, 1, func(b *bench) {
				b.key.SetMinDecryptionVersion(2)
				good, bad := b.wrapped("seed", ""), vault.Item{Data: []byte(test.ciphertext)}
				b.vault.Inject(vaulttest.Fault{Match: isBatch, Status: 403})
				release := b.hang()
				served := []*request{b.begin(b.decrypt, good, 0)}
				failed := []*request{b.begin(b.decrypt, bad, 0)}
				served = append(served, b.begin(b.decrypt, good, 0))
				failed = append(failed, b.begin(b.decrypt, bad, 0))
				served = append(served, b.begin(b.decrypt, good, 0))
				release()
				wantClasses(t, served, "")
				wantClasses(t, failed, test.class)
				if len(b.refused) != 1 {
					t.Errorf("reported %d times", len(b.refused))
				}
			})
		})
	}
}

// A refusal that has passed is no reason to go on without batches: an API proxy may have had no token.
func TestRefusedForAMoment(t *testing.T) {
	run(t, 1, func(b *bench) {
		b.vault.Inject(vaulttest.Fault{Match: isBatch, Times: 1, Status: 403, Body: `{"errors":["permission denied"]}`})
		for range 2 {
			release := b.hang()
			requests := b.beginMany(20, 0)
			release()
			for i, r := range requests {
				b.reads(r, fmt.Sprint(i), "")
			}
		}
		if len(b.refused) != 0 {
			t.Errorf("taken for a Vault without batches: %v", b.refused)
		}
		b.forget()
		release := b.hang()
		requests := b.beginMany(20, 0)
		release()
		wantClasses(t, requests, "")
		b.wantCalls(0, 19)
	})
}

// TestWithoutBatchesMoreCallsAreMade checks that the limit, which counts on batches, does not hold up single calls.
func TestWithoutBatchesMoreCallsAreMade(t *testing.T) {
	run(t, 1, func(b *bench) {
		b.vault.Inject(vaulttest.Fault{Match: isBatch, Status: 413})
		release := b.hang()
		requests := b.beginMany(3, 0)
		release()
		wantClasses(t, requests, "")
		release = b.hang()
		requests = b.beginMany(200, 0)
		b.wantLoad(128, 72)
		release()
		wantClasses(t, requests, "")
	})
}

// Each operation finds out for itself: a policy names them one by one.
func TestOnlyOneOperationIsRefused(t *testing.T) {
	run(t, 1, func(b *bench) {
		seed := b.wrapped("seed", "")
		b.vault.Inject(vaulttest.Fault{Status: 403, Match: func(op string, r *http.Request) bool {
			return op == vaulttest.OpEncrypt && isBatch(op, r)
		}})
		release := b.hang()
		requests := b.beginMany(10, 0)
		for range 10 {
			requests = append(requests, b.begin(b.decrypt, seed, 0))
		}
		release()
		wantClasses(t, requests, "")
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, c := range b.calls {
			if c.op == vaulttest.OpDecrypt && !c.batch {
				t.Error("a Decrypt went alone")
			}
		}
	})
}
