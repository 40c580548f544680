// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
	"github.com/trousseau-io/trousseau/test/harness/usage"
)

// fake is a Vault in this process.
type fake struct {
	*vaulttest.Server
	release func() // of the limit
}

func newFake(t *testing.T) *fake {
	s, err := vaulttest.New(vaulttest.Options{TLS: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return &fake{s, func() {}}
}

func (f *fake) reach() reach {
	return reach{what: "a fake Vault", url: f.URL(), root: f.RootToken(), ca: f.CAPEM()}
}
func (f *fake) calls() (int, error)         { return f.Total(), nil }
func (f *fake) forget() error               { f.ResetCounts(); return nil }
func (f *fake) cpu() (time.Duration, error) { return usage.CPU(os.Getpid()) }
func (f *fake) down() error                 { f.Stop(); return nil }
func (f *fake) up(context.Context) error    { return f.Start() }

// limit refuses the next two Decrypts.
func (f *fake) limit(_ context.Context, perSecond int) error {
	f.release()
	f.release = func() {}
	if perSecond > 0 {
		f.release = f.Inject(vaulttest.Fault{Status: 429, Times: 2, Match: vaulttest.Ops(vaulttest.OpDecrypt)})
	}
	return nil
}

// small are options for storms that take seconds. The plugins run inside the test.
func small() options {
	return options{clusters: numbers{1, 2}, atOnce: numbers{10, 1}, seeds: 30, quota: 1, outage: 300 * time.Millisecond, patience: time.Minute}
}

func TestStorms(t *testing.T) {
	var table bytes.Buffer
	if err := small().run(t.Context(), newFake(t), &table); err != nil {
		t.Fatal(err)
	}
	t.Log("\n" + table.String())
	if got, want := strings.Count(table.String(), "| trousseau |"), 7; got != want {
		t.Errorf("%d storms with trousseau, want %d", got, want)
	}
}

func TestCoalescingSavesCalls(t *testing.T) {
	o := small()
	s, err := newStage(t.Context(), o, newFake(t))
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	calls := func(scene scene) int {
		scene.clusters, scene.atOnce, scene.vault = 1, 10, none
		got, err := s.play(t.Context(), scene)
		if err != nil {
			t.Fatal(err)
		}
		return got.calls
	}
	direct := calls(scene{direct: true})
	// More if a call takes so long that it is repeated.
	if least := perCluster * (o.seeds + 2); direct < least {
		t.Errorf("%d calls directly, want %d: one per seed, and two for Status", direct, least)
	}
	if got := calls(scene{flags: []string{"--max-vault-requests=1"}}); got >= direct {
		t.Errorf("%d calls with trousseau, want fewer than the %d of direct calls", got, direct)
	}
}

func TestWrongPlaintextIsNoticed(t *testing.T) {
	s, err := newStage(t.Context(), small(), newFake(t))
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	s.clusters[0].seeds[1][7].plaintext[0]++
	for _, direct := range []bool{true, false} {
		_, err = s.play(t.Context(), scene{clusters: 1, atOnce: 10, vault: none, direct: direct})
		if !errors.Is(err, errWrong) {
			t.Errorf("direct %t: error %v, want %v", direct, err, errWrong)
		}
	}
}

func TestNotReadyIsAnError(t *testing.T) {
	o, v := small(), newFake(t)
	o.patience = time.Second
	s, err := newStage(t.Context(), o, v)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	v.Stop()
	for _, direct := range []bool{true, false} {
		got, err := s.play(t.Context(), scene{clusters: 1, atOnce: 10, vault: none, direct: direct})
		if err != nil || got.notReady != perCluster || verdict([]outcome{got}) == nil {
			t.Errorf("direct %t: %d plugins are not ready, want %d, and an error in the end: %v", direct, got.notReady, perCluster, err)
		}
	}
}
