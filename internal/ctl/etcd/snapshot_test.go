// SPDX-License-Identifier: Apache-2.0

package etcd_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/trousseau-io/trousseau/internal/ctl/etcd"
	"github.com/trousseau-io/trousseau/internal/testkit/etcdtest"
)

// snapshot writes a snapshot with the data that fill puts.
func snapshot(t *testing.T, fill func(*etcdtest.File)) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "snapshot.db")
	f, err := etcdtest.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	fill(f)
	if err := f.Snapshot(); err != nil {
		t.Fatal(err)
	}
	return name
}

// read returns the content of a snapshot, and the older values in the order in which
// they were read.
func read(t *testing.T, name string, prefixes ...string) (now map[string]string, older []string, reading etcd.Reading, err error) {
	t.Helper()
	now = make(map[string]string)
	s := &etcd.Snapshot{File: name, Older: func(o etcd.Object) { older = append(older, string(o.Key)+"="+string(o.Value)) }}
	reading, err = s.Read(t.Context(), prefixes, func(o etcd.Object) error {
		if _, twice := now[string(o.Key)]; twice {
			t.Errorf("%s was read twice", o.Key)
		}
		now[string(o.Key)] = fmt.Sprintf("%s@%d", o.Value, o.Revision)
		return nil
	})
	return now, older, reading, err
}

// With Outside, the newest value of each other key is read too.
func TestSnapshotReadsOutside(t *testing.T) {
	name := snapshot(t, func(f *etcdtest.File) {
		f.Put("/r/a", []byte("1"))
		f.Put("/k/a", []byte("1"))
		f.Put("/k/a", []byte("2"))
		f.Put("/k/gone", []byte("1"))
		f.Delete("/k/gone")
		f.Put("compact_rev_key", []byte("3"))
	})
	outside := make(map[string]string)
	s := &etcd.Snapshot{
		File:  name,
		Older: func(o etcd.Object) { t.Errorf("an older value of %s was read", o.Key) },
		Outside: func(o etcd.Object) error {
			outside[string(o.Key)] += string(o.Value)
			return nil
		},
	}
	inside := 0
	if _, err := s.Read(t.Context(), []string{"/r/"}, func(etcd.Object) error { inside++; return nil }); err != nil {
		t.Fatal(err)
	}
	if want := map[string]string{"/k/a": "2", "compact_rev_key": "3"}; inside != 1 || !maps.Equal(outside, want) {
		t.Errorf("%d inside, outside %v, want 1 and %v", inside, outside, want)
	}
}

func TestSnapshotShowsTheNewestOfEachKey(t *testing.T) {
	tests := map[string]struct {
		fill  func(*etcdtest.File)
		want  map[string]string
		older []string
	}{
		"each key once": {
			fill: func(f *etcdtest.File) { f.Put("/r/b", []byte("1")); f.Put("/r/a", []byte("2")) },
			want: map[string]string{"/r/b": "1@2", "/r/a": "2@3"},
		},
		"overwritten": {
			fill:  func(f *etcdtest.File) { f.Put("/r/a", []byte("1")); f.Put("/r/b", nil); f.Put("/r/a", []byte("2")) },
			want:  map[string]string{"/r/a": "2@4", "/r/b": "@3"},
			older: []string{"/r/a=1"},
		},
		"deleted": {
			fill:  func(f *etcdtest.File) { f.Put("/r/a", []byte("1")); f.Put("/r/a", []byte("2")); f.Delete("/r/a") },
			want:  map[string]string{},
			older: []string{"/r/a=2", "/r/a=1"},
		},
		"deleted and recreated": {
			fill:  func(f *etcdtest.File) { f.Put("/r/a", []byte("1")); f.Delete("/r/a"); f.Put("/r/a", []byte("2")) },
			want:  map[string]string{"/r/a": "2@4"},
			older: []string{"/r/a=1"},
		},
		"with a lease": {
			fill: func(f *etcdtest.File) { f.PutLeased("/r/a", []byte("1"), 7) },
			want: map[string]string{"/r/a": "1@2"},
		},
		"compacted": {
			fill: func(f *etcdtest.File) {
				f.Put("/r/a", []byte("1"))
				f.Put("/r/gone", []byte("1"))
				f.Put("/r/a", []byte("2"))
				f.Compact(f.Delete("/r/gone"))
				f.Put("/r/a", []byte("3"))
			},
			want:  map[string]string{"/r/a": "3@6"},
			older: []string{"/r/a=2"},
		},
		"a deletion is all that is left": {
			fill: func(f *etcdtest.File) { at := f.Put("/r/a", []byte("1")); f.Delete("/r/a"); f.Compact(at) },
			want: map[string]string{}, older: []string{"/r/a=1"},
		},
		"others": {
			fill: func(f *etcdtest.File) {
				f.Put("/r/a", []byte("1"))
				f.Put("/rx", []byte("1"))
				f.Put("compact_rev_key", []byte("1"))
			},
			want: map[string]string{"/r/a": "1@2"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, older, reading, err := read(t, snapshot(t, test.fill), "/r/")
			if err != nil {
				t.Fatal(err)
			}
			if !maps.Equal(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
			if strings.Join(older, " ") != strings.Join(test.older, " ") {
				t.Errorf("older values: got %v, want %v", older, test.older)
			}
			if reading.Checksum != etcd.ChecksumOK {
				t.Errorf("the checksum is %q, want ok", reading.Checksum)
			}
		})
	}
}

// A snapshot has the same content as a map after the same history.
func TestSnapshotShowsWhatItsHistoryLeft(t *testing.T) {
	random := rand.New(rand.NewPCG(6, 6))
	want := make(map[string]string)
	var last int64
	name := snapshot(t, func(f *etcdtest.File) {
		for range 30_000 {
			key := fmt.Sprintf("/r/%d", random.IntN(4000))
			switch random.IntN(10) {
			case 0:
				if _, found := want[key]; found {
					last = f.Delete(key)
					delete(want, key)
				}
			default:
				value := strings.Repeat("x", random.IntN(200))
				last = f.Put(key, []byte(value))
				want[key] = fmt.Sprintf("%s@%d", value, last)
			}
		}
		f.Compact(last / 2)
	})
	got, _, reading, err := read(t, name, "/r/")
	if err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(got, want) {
		t.Errorf("%d keys were read, want %d with the same values", len(got), len(want))
	}
	if reading.Revision != last {
		t.Errorf("the revision is %d, want %d", reading.Revision, last)
	}
}

func TestSnapshotWithSeveralPrefixes(t *testing.T) {
	name := snapshot(t, func(f *etcdtest.File) {
		f.Put("/r/secrets/a", nil)
		f.Put("/r/pods/a", nil)
		f.Put("/r/configmaps/a", nil)
	})
	got, _, _, err := read(t, name, "/r/secrets/", "/r/configmaps/")
	if err != nil || len(got) != 2 || got["/r/pods/a"] != "" {
		t.Errorf("got %v, %v, want secrets and configmaps", got, err)
	}
	if _, _, _, err := read(t, name, "/r/", "/r/secrets/"); err == nil {
		t.Error("overlapping prefixes were accepted")
	}
}

func TestSnapshotWithoutChecksum(t *testing.T) {
	name := filepath.Join(t.TempDir(), "db")
	f, err := etcdtest.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	f.Put("/r/a", []byte("1"))
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	got, _, reading, err := read(t, name, "/r/")
	if err != nil || len(got) != 1 || reading.Checksum != etcd.ChecksumMissing {
		t.Errorf("got %v, checksum %q, %v, want one key and a missing checksum", got, reading.Checksum, err)
	}
}

// A file that cannot be trusted is refused, and the error says what to do.
func TestSnapshotRefused(t *testing.T) {
	fill := func(f *etcdtest.File) {
		for i := range 2000 {
			f.Put(fmt.Sprintf("/r/%d", i), make([]byte, 300))
		}
	}
	edit := func(change func(text []byte) []byte) func(t *testing.T) string {
		return func(t *testing.T) string {
			name := snapshot(t, fill)
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(name, change(text), 0o600); err != nil {
				t.Fatal(err)
			}
			return name
		}
	}
	raw := func(key, value string) func(t *testing.T) string {
		return func(t *testing.T) string {
			return snapshot(t, func(f *etcdtest.File) { fill(f); f.Raw([]byte(key), []byte(value)) })
		}
	}
	tests := map[string]struct {
		file func(t *testing.T) string
		want string
	}{
		"absent":            {func(t *testing.T) string { return filepath.Join(t.TempDir(), "none.db") }, "no such file"},
		"a directory":       {func(t *testing.T) string { return t.TempDir() }, "is not a regular file: copy the snapshot to a disk first"},
		"empty":             {edit(func([]byte) []byte { return nil }), "is empty: use another snapshot"},
		"text":              {edit(func([]byte) []byte { return []byte(strings.Repeat("x", 9000)) }), "is not an etcd snapshot"},
		"short text":        {edit(func([]byte) []byte { return []byte("hello") }), "is not an etcd snapshot"},
		"one bit is wrong":  {edit(func(b []byte) []byte { b[len(b)/2] ^= 1; return b }), "does not match the SHA-256 at its end"},
		"the sum is wrong":  {edit(func(b []byte) []byte { b[len(b)-1] ^= 1; return b }), "does not match the SHA-256 at its end"},
		"cut to whole page": {edit(func(b []byte) []byte { return b[:4096*20] }), "the end is missing"},
		"cut to the metas":  {edit(func(b []byte) []byte { return b[:4096*2] }), "the end is missing"},
		"not a revision":    {raw("hello", ""), "its revisions are not in order"},
		"not a value":       {raw("\xff\xff\xff\xff\xff\xff\xff\xff_\x00\x00\x00\x00\x00\x00\x00\x00", "\xff"), "is not from etcd"},
		"without a key":     {raw("\x7f\xff\xff\xff\xff\xff\xff\xff_\x00\x00\x00\x00\x00\x00\x00\x00", ""), "is not from etcd"},
		"another database": {func(t *testing.T) string {
			name := filepath.Join(t.TempDir(), "other.db")
			db, err := bbolt.Open(name, 0o600, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			return name
		}, "is a bbolt database, but not of etcd"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, _, _, err := read(t, test.file(t), "/r/")
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want an error with %q", err, test.want)
			}
		})
	}
}

// A damaged file without a checksum never makes reading hang.
func TestSnapshotDamaged(t *testing.T) {
	whole := database(t, 3000)
	random := rand.New(rand.NewPCG(7, 7))
	damaged := filepath.Join(t.TempDir(), "db")
	refused := 0
	for range 200 {
		text := bytes.Clone(whole)
		for range 1 + random.IntN(8) {
			// Page headers and pointers are the sensitive parts.
			page := random.IntN(len(text) / pageSize)
			at := page*pageSize + random.IntN(80)
			switch random.IntN(3) {
			case 0:
				text[at] = byte(random.IntN(256))
			case 1: // seems to be a page
				binary.NativeEndian.PutUint64(text[at&^7:], uint64(random.IntN(len(text)/pageSize)))
			case 2: // is another page
				other := random.IntN(len(text) / pageSize)
				copy(text[page*pageSize:(page+1)*pageSize], whole[other*pageSize:])
			}
		}
		if err := os.WriteFile(damaged, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, _, err := read(t, damaged, "/r/"); err != nil {
			refused++
		}
	}
	if refused == 0 {
		t.Error("none of 200 damaged files was refused")
	}
	t.Logf("%d of 200 were refused", refused)
}

// A page that refers to itself or a parent must not cause an endless loop.
func TestSnapshotInACircle(t *testing.T) {
	whole := database(t, 3000)
	damaged := filepath.Join(t.TempDir(), "db")
	circles := 0
	for page := 2; page < len(whole)/pageSize; page++ {
		at := page * pageSize
		if binary.NativeEndian.Uint16(whole[at+8:]) != 1 { // not a branch
			continue
		}
		count := int(binary.NativeEndian.Uint16(whole[at+10:]))
		for _, child := range []int{0, count / 2, count - 1} {
			text := bytes.Clone(whole)
			binary.NativeEndian.PutUint64(text[at+16+child*16+8:], uint64(page))
			if err := os.WriteFile(damaged, text, 0o600); err != nil {
				t.Fatal(err)
			}
			_, _, _, err := read(t, damaged, "/r/")
			if err == nil {
				continue // a page that is no longer in use
			}
			circles++
			if !strings.Contains(err.Error(), "its pages are inconsistent") {
				t.Errorf("page %d, child %d: %v", page, child, err)
			}
		}
	}
	if circles == 0 {
		t.Error("no cycle was created: the test proves nothing")
	}
}

const pageSize = 4096

// database writes a member's database with n keys.
func database(t *testing.T, n int) []byte {
	t.Helper()
	name := filepath.Join(t.TempDir(), "db")
	f, err := etcdtest.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		f.Put(fmt.Sprintf("/r/%d", i), make([]byte, 300))
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestSnapshotInUse(t *testing.T) {
	name := filepath.Join(t.TempDir(), "db")
	f, err := etcdtest.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, _, _, err := read(t, name, "/r/"); err == nil || !strings.Contains(err.Error(), "in use by a running etcd: use --endpoints") {
		t.Errorf("got %v, want that the file is in use", err)
	}
}

func TestSnapshotEndsWithItsCaller(t *testing.T) {
	name := snapshot(t, func(f *etcdtest.File) {
		for i := range 5000 {
			f.Put(fmt.Sprintf("/r/%d", i), nil)
		}
	})
	s := &etcd.Snapshot{File: name}
	enough := errors.New("enough")
	if _, err := s.Read(t.Context(), []string{"/r/"}, func(etcd.Object) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("got %v, want the caller's error", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	_, err := s.Read(ctx, []string{"/r/"}, func(etcd.Object) error {
		n++
		cancel()
		return nil
	})
	if !errors.Is(err, context.Canceled) || n >= 5000 {
		t.Errorf("got %v after %d objects, want it canceled before the end", err, n)
	}
	defer func() {
		if recover() == nil {
			t.Error("the caller's panic was taken for a damaged file")
		}
	}()
	_, _ = s.Read(t.Context(), []string{"/r/"}, func(etcd.Object) error { panic("a bug") })
}

func TestSnapshotTellsProgress(t *testing.T) {
	name := snapshot(t, func(f *etcdtest.File) {
		for i := range 5000 {
			f.Put(fmt.Sprintf("/r/%d", i), make([]byte, 500))
		}
	})
	last := make(map[string][2]int64)
	s := &etcd.Snapshot{File: name, Progress: func(step string, done, total int64) {
		if before := last[step]; done < before[0] || done > total {
			t.Errorf("%s: %d of %d after %d", step, done, total, before[0])
		}
		last[step] = [2]int64{done, total}
	}}
	if _, err := s.Read(t.Context(), []string{"/r/"}, func(etcd.Object) error { return nil }); err != nil {
		t.Fatal(err)
	}
	for _, step := range []string{etcd.StepChecking, etcd.StepReading} {
		if got := last[step]; got[0] == 0 || got[0] != got[1] {
			t.Errorf("%s ended at %d of %d", step, got[0], got[1])
		}
	}
}
