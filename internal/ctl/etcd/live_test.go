// SPDX-License-Identifier: Apache-2.0

package etcd_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/trousseau-io/trousseau/internal/ctl/etcd"
)

func name(i int) []byte { return fmt.Appendf(nil, "/r/%06d", i) }

func dial(t *testing.T, s *server, opts etcd.Options) *etcd.Live {
	t.Helper()
	opts.Endpoints = []string{s.endpoint}
	live, err := etcd.Dial(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(live.Close)
	return live
}

// keys reads all keys under prefixes.
func keys(t *testing.T, live *etcd.Live, prefixes ...string) ([]string, etcd.Reading) {
	t.Helper()
	var all []string
	reading, err := live.Read(t.Context(), prefixes, func(o etcd.Object) error {
		all = append(all, string(o.Key))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all, reading
}

func mustBeAll(t *testing.T, got []string, n int) {
	t.Helper()
	if !slices.IsSorted(got) {
		t.Error("the keys are not in order")
	}
	if unique := len(slices.Compact(slices.Clone(got))); len(got) != n || unique != n {
		t.Errorf("%d keys were read, %d of them different, want %d", len(got), unique, n)
	}
}

func TestLiveReadsInPages(t *testing.T) {
	for _, n := range []int{0, 1, 99, 100, 101, 200, 1234} {
		s := newServer(t, n, 10)
		got, reading := keys(t, dial(t, s, etcd.Options{PageSize: 100}), "/r/")
		mustBeAll(t, got, n)
		if reading.Revision != 1000 || reading.Resumptions != nil {
			t.Errorf("%d keys: revision %d, resumptions %v, want 1000 and none", n, reading.Revision, reading.Resumptions)
		}
		for _, limit := range s.limits {
			if limit != 100 {
				t.Errorf("a page of %d was asked for, want 100", limit)
			}
		}
	}
}

func TestLiveReadsAtOneRevision(t *testing.T) {
	s := newServer(t, 500, 10)
	s.before = func(s *server, r *pb.RangeRequest) error {
		s.revision++ // another client writes concurrently
		if !r.CountOnly && r.Revision != 1001 {
			t.Errorf("revision %d was asked for, want 1001 all the time", r.Revision)
		}
		return nil
	}
	got, _ := keys(t, dial(t, s, etcd.Options{PageSize: 100}), "/r/")
	mustBeAll(t, got, 500)
}

func TestLiveAsksForSmallerPages(t *testing.T) {
	s := newServer(t, 300, 10_000)
	got, _ := keys(t, dial(t, s, etcd.Options{PageSize: 100, PageBytes: 300_000}), "/r/")
	mustBeAll(t, got, 300)
	if s.limits[0] != 100 || s.limits[len(s.limits)-1] != 25 {
		t.Errorf("pages of %v were asked for, want 100, 50, then 25", s.limits)
	}
}

func TestLiveWithAValueLargerThanAPage(t *testing.T) {
	live := dial(t, newServer(t, 3, 10_000), etcd.Options{PageBytes: 5_000})
	_, err := live.Read(t.Context(), []string{"/r/"}, func(etcd.Object) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "larger than max") {
		t.Errorf("got %v, want that a value is larger than a page may be", err)
	}
}

func TestLiveGoesOnAfterACompaction(t *testing.T) {
	s := newServer(t, 1000, 10)
	pages := 0
	s.before = func(s *server, r *pb.RangeRequest) error {
		if r.CountOnly {
			return nil
		}
		if pages++; pages == 4 || pages == 8 {
			s.revision += 100
			s.compacted = s.revision
		}
		return nil
	}
	got, reading := keys(t, dial(t, s, etcd.Options{PageSize: 100}), "/r/")
	mustBeAll(t, got, 1000)
	want := []etcd.Resumption{
		{Revision: 1100, Key: string(name(299)) + "\x00"},
		{Revision: 1200, Key: string(name(599)) + "\x00"},
	}
	if !slices.Equal(reading.Resumptions, want) {
		t.Errorf("resumed %+v, want %+v", reading.Resumptions, want)
	}
	if reading.Revision != 1000 {
		t.Errorf("the revision is %d, want that of the first page, 1000", reading.Revision)
	}
}

func TestLiveGivesUpOnEndlessCompactions(t *testing.T) {
	s := newServer(t, 10, 10)
	s.before = func(s *server, r *pb.RangeRequest) error {
		if !r.CountOnly {
			return rpctypes.ErrGRPCCompacted
		}
		return nil
	}
	_, err := dial(t, s, etcd.Options{}).Read(t.Context(), []string{"/r/"}, func(etcd.Object) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "audit a snapshot instead") {
		t.Errorf("got %v, want that a snapshot is the way", err)
	}
}

// With Outside, every key is read, each once, at one revision.
func TestLiveReadsOutside(t *testing.T) {
	s := newServer(t, 1000, 10)
	for _, key := range []string{"\x01", "/a/1", "/r", "/rx", "\xff"} {
		s.objects = append(s.objects, &mvccpb.KeyValue{Key: []byte(key)})
	}
	slices.SortFunc(s.objects, func(a, b *mvccpb.KeyValue) int { return bytes.Compare(a.Key, b.Key) })
	live := dial(t, s, etcd.Options{PageSize: 100})
	var outside []string
	live.Outside = func(o etcd.Object) error {
		outside = append(outside, string(o.Key))
		return nil
	}
	inside, reading := keys(t, live, "/r/0005", "/r/0001")
	if want := []string{"\x01", "/a/1", "/r"}; !slices.Equal(outside[:3], want) {
		t.Errorf("first keys outside: %q, want %q", outside[:3], want)
	}
	all := append(inside, outside...)
	slices.Sort(all)
	mustBeAll(t, all, 1005)
	if len(inside) != 200 || reading.OutsideDenied {
		t.Errorf("%d keys under the prefixes, %+v, want 200", len(inside), reading)
	}
}

// A user that may read only the prefixes gets what is there, and is told.
func TestLiveMayNotReadOutside(t *testing.T) {
	s := newServer(t, 10, 10)
	s.before = func(_ *server, r *pb.RangeRequest) error {
		if string(r.Key) != "/r/" || string(r.RangeEnd) != "/r0" {
			return rpctypes.ErrGRPCPermissionDenied
		}
		return nil
	}
	live := dial(t, s, etcd.Options{})
	live.Outside = func(o etcd.Object) error { return fmt.Errorf("%s was read", o.Key) }
	inside, reading := keys(t, live, "/r/")
	mustBeAll(t, inside, 10)
	if !reading.OutsideDenied {
		t.Error("the reading does not say that the rest was denied")
	}
	if _, err := live.Read(t.Context(), []string{"/q/"}, func(etcd.Object) error { return nil }); err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("a prefix that may not be read: %v, want it denied", err)
	}
}

func TestLiveWithSeveralPrefixes(t *testing.T) {
	s := newServer(t, 1000, 10)
	got, _ := keys(t, dial(t, s, etcd.Options{PageSize: 7}), "/r/0001", "/r/0003")
	mustBeAll(t, got, 200)
}

func TestLiveEndsWithItsCaller(t *testing.T) {
	live := dial(t, newServer(t, 1000, 10), etcd.Options{PageSize: 10})
	enough := errors.New("enough")
	if _, err := live.Read(t.Context(), []string{"/r/"}, func(etcd.Object) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("got %v, want the caller's error", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err := live.Read(ctx, []string{"/r/"}, func(etcd.Object) error {
		cancel()
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want it canceled", err)
	}
}

func TestLiveWithoutServer(t *testing.T) {
	const address = "127.0.0.1:1"
	live, err := etcd.Dial(t.Context(), etcd.Options{Endpoints: []string{"http://" + address}})
	if err == nil {
		defer live.Close()
		_, err = live.Read(t.Context(), []string{"/r/"}, func(etcd.Object) error { return nil })
	}
	if err == nil || !strings.Contains(err.Error(), "reading etcd at http://"+address) || !strings.Contains(err.Error(), "connection refused: check that etcd runs, and --endpoints") {
		t.Errorf("got %v, want who did not answer and what to check", err)
	}
}

// One endpoint of several is enough.
func TestLiveWithOneOfSeveral(t *testing.T) {
	s := newServer(t, 10, 10)
	live, err := etcd.Dial(t.Context(), etcd.Options{Endpoints: []string{"http://127.0.0.1:1", s.endpoint}})
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	got, _ := keys(t, live, "/r/")
	mustBeAll(t, got, 10)
}

// TLS errors are reported immediately.
func TestLiveWithUnknownCertificate(t *testing.T) {
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	began := time.Now()
	_, err := etcd.Dial(t.Context(), etcd.Options{Endpoints: []string{server.URL}})
	if err == nil || !strings.Contains(err.Error(), "certificate signed by unknown authority: check --cacert") {
		t.Errorf("got %v, want that the certificate is not known", err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the error took %s", took)
	}
}

func TestTLSFiles(t *testing.T) {
	garbage := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(garbage, []byte("no PEM"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ ca, cert, key, want string }{
		{"/none", "", "", "no such file"},
		{garbage, "", "", "has no PEM certificate"},
		{"", garbage, "", "a client certificate and its key"},
		{"", "", garbage, "a client certificate and its key"},
		{"", garbage, garbage, "reading " + garbage},
	} {
		if _, err := etcd.TLS(test.ca, test.cert, test.key); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: got %v", test, err)
		}
	}
}
