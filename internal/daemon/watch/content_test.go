// SPDX-License-Identifier: Apache-2.0

package watch_test

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/trousseau-io/trousseau/internal/daemon/watch"
)

// named makes an Options.Related that takes each line of the main file as a
// name in root.
func named(root dir) func([]byte) []string {
	return func(main []byte) []string {
		var names []string
		for line := range strings.Lines(string(main)) {
			names = append(names, root.at(strings.TrimSpace(line)))
		}
		return names
	}
}

// awaitOpen receives until the named related file is reported to hold want.
func awaitOpen(t *testing.T, w *watch.Watcher, name, want string) {
	t.Helper()
	timeout := time.After(bound)
	for {
		select {
		case c := <-w.Contents():
			if got, err := c.Open(name); err == nil && string(got) == want {
				return
			}
		case <-timeout:
			t.Fatalf("not received within %v: %s holding %q", bound, name, want)
		}
	}
}

func TestRelatedFiles(t *testing.T) {
	t.Parallel()
	root := newDir(t)
	root.write("etc/config.yaml", "tls/cert\ntls/key\n")
	root.write("tls/cert", "cert 1")
	root.write("other/token", "token 1")
	w := start(t, watch.Options{Path: root.at("etc/config.yaml"), Related: named(root), Poll: time.Hour})

	c := receive(t, w)
	if got, err := c.Open(root.at("tls/cert")); err != nil || string(got) != "cert 1" {
		t.Errorf("Open(cert): got %q, %v, want %q", got, err, "cert 1")
	}
	if _, err := c.Open(root.at("tls/key")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open(key), which does not exist: got error %v, want fs.ErrNotExist", err)
	}
	for _, name := range []string{"other/token", "etc/config.yaml"} {
		if _, err := c.Open(root.at(name)); err == nil {
			t.Errorf("Open(%s), which is not related: got no error", name)
		}
	}

	root.write("tls/key", "key 1")
	awaitOpen(t, w, root.at("tls/key"), "key 1")
	root.render("tls/cert", "cert 2")
	awaitOpen(t, w, root.at("tls/cert"), "cert 2")
	root.remove("tls")
	root.write("tls/cert", "cert 3")
	awaitOpen(t, w, root.at("tls/cert"), "cert 3")

	root.render("etc/config.yaml", "other/token\n")
	awaitOpen(t, w, root.at("other/token"), "token 1")
	root.render("other/token", "token 2")
	awaitOpen(t, w, root.at("other/token"), "token 2")
}

func TestWatchesAreDropped(t *testing.T) {
	t.Parallel()
	root := newDir(t)
	root.write("etc/config.yaml", "tls/cert\n")
	root.write("tls/cert", "cert")
	root.write("other/token", "token")
	inotify := make(chan *fsnotify.Watcher, 1)
	w := start(t, watch.Options{Path: root.at("etc/config.yaml"), Related: named(root), Poll: time.Hour}.WithNotify(
		func() (*fsnotify.Watcher, error) {
			in, err := fsnotify.NewWatcher()
			inotify <- in
			return in, err
		}))
	receive(t, w)
	in := <-inotify

	watched := func(yes, no string) func() bool {
		return func() bool {
			list := in.WatchList()
			return slices.Contains(list, root.at("etc")) &&
				slices.Contains(list, root.at(yes)) && !slices.Contains(list, root.at(no))
		}
	}
	eventually(t, "tls is watched, and other is not", watched("tls", "other"))
	root.render("etc/config.yaml", "other/token\n")
	awaitOpen(t, w, root.at("other/token"), "token")
	eventually(t, "other is watched, and tls no more", watched("other", "tls"))
}

// TestDigest compares the digests of sets of files that do and do not differ.
func TestDigest(t *testing.T) {
	t.Parallel()
	const main = "/main"
	broken, alsoBroken := errors.New("broken"), errors.New("also broken")
	type set struct {
		files   map[string]any // a string is the content, an error is why there is none
		related []string
	}
	base := set{map[string]any{main: "m", "/a": "1", "/b": "2"}, []string{"/a", "/b"}}
	for _, tc := range []struct {
		name string
		set  set
		same bool
	}{
		{"same", base, true},
		{"another order", set{base.files, []string{"/b", "/a"}}, true},
		{"named twice", set{base.files, []string{"/a", "/b", "/a"}}, true},
		{"main named as well", set{base.files, []string{"/a", "/b", main}}, true},
		{"main differs", set{map[string]any{main: "n", "/a": "1", "/b": "2"}, base.related}, false},
		{"related differs", set{map[string]any{main: "m", "/a": "1", "/b": "3"}, base.related}, false},
		{"contents swapped", set{map[string]any{main: "m", "/a": "2", "/b": "1"}, base.related}, false},
		{"bytes moved to the neighbour", set{map[string]any{main: "m", "/a": "12", "/b": ""}, base.related}, false},
		{"content that looks like the neighbour", set{map[string]any{main: "m", "/a": "1/bdata2"}, []string{"/a"}}, false},
		{"fewer related", set{base.files, []string{"/a"}}, false},
		{"another name", set{map[string]any{main: "m", "/a": "1", "/c": "2"}, []string{"/a", "/c"}}, false},
		{"related unreadable", set{map[string]any{main: "m", "/a": "1", "/b": broken}, base.related}, false},
		{"related holds the error's text", set{map[string]any{main: "m", "/a": "1", "/b": "broken"}, base.related}, false},
		{"related empty", set{map[string]any{main: "m", "/a": "1", "/b": ""}, base.related}, false},
		{"main unreadable", set{map[string]any{main: broken}, nil}, false},
		{"main unreadable otherwise", set{map[string]any{main: alsoBroken}, nil}, false},
		{"related not absolute", set{base.files, []string{"/a", "b"}}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			digest := func(s set) string {
				return receive(t, start(t, watch.Options{
					Path:    main,
					Related: func([]byte) []string { return s.related },
					Read: func(name string) ([]byte, error) {
						if err, ok := s.files[name].(error); ok {
							return []byte("part"), err
						}
						return []byte(s.files[name].(string)), nil
					},
				}.WithNotify(exhausted))).Digest
			}
			got, want := digest(tc.set), digest(base)
			if len(want) != 64 {
				t.Fatalf("digest %q is not hex SHA-256", want)
			}
			if (got == want) != tc.same {
				t.Errorf("same digest: got %t, want %t", got == want, tc.same)
			}
		})
	}
}

func TestUnreadableMain(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	var asked atomic.Bool
	w := start(t, watch.Options{
		Path:    "/main",
		Related: func([]byte) []string { asked.Store(true); return nil },
		Read:    func(string) ([]byte, error) { return []byte("part"), broken },
	}.WithNotify(exhausted))

	c := receive(t, w)
	if !errors.Is(c.Err, broken) || c.Main != nil || c.Digest == "" {
		t.Errorf("got %q, digest %q, error %v, want no content, a digest and the reader's error", c.Main, c.Digest, c.Err)
	}
	if asked.Load() {
		t.Error("asked for the files related to what could not be read")
	}
}

// TestDefaultReader is about what the reader of the package refuses.
func TestDefaultReader(t *testing.T) {
	t.Parallel()
	const limit = 1 << 20
	for _, tc := range []struct {
		name   string
		layout func(root dir)
		want   string // in the error; empty: none
	}{
		{"as large as allowed", func(root dir) {
			root.write("config.yaml", strings.Repeat("x", limit))
		}, ""},
		{"too large", func(root dir) {
			root.write("config.yaml", strings.Repeat("x", limit+1))
		}, "larger than the limit of 1048576 bytes"},
		{"empty", func(root dir) { root.write("config.yaml", "") }, ""},
		{"directory", func(root dir) { root.mkdir("config.yaml") }, "not a regular file"},
		{"pipe without a writer", func(root dir) {
			root.must(syscall.Mkfifo(root.at("config.yaml"), 0o600))
		}, "not a regular file"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			root := newDir(t)
			tc.layout(root)
			c := receive(t, start(t, watch.Options{Path: root.at("config.yaml")}))
			if tc.want == "" {
				if c.Err != nil {
					t.Errorf("got error %v", c.Err)
				}
				return
			}
			if got := fmt.Sprint(c.Err); !strings.Contains(got, tc.want) || !strings.Contains(got, root.path) {
				t.Errorf("got error %q, want it to name the file and say %q", got, tc.want)
			}
		})
	}
}

func TestRelativePath(t *testing.T) {
	t.Parallel()
	c := receive(t, start(t, watch.Options{Path: "config.yaml"}))
	if got, want := fmt.Sprint(c.Err), `reading "config.yaml": not an absolute path`; got != want {
		t.Errorf("got error %q, want %q", got, want)
	}
}

// Files that are different each time they are read show that what is hashed and
// what is handed out are the same bytes.
func TestEachFileIsReadOncePerLook(t *testing.T) {
	t.Parallel()
	o := watch.Options{Path: "/main", Related: func([]byte) []string { return []string{"/key"} }, Poll: time.Hour}
	o = o.WithNotify(exhausted)

	var reads int
	o.Read = func(string) ([]byte, error) {
		reads++
		return fmt.Append(nil, reads), nil
	}
	got := receive(t, start(t, o))
	for range 2 {
		if key, err := got.Open("/key"); err != nil || string(key) != "2" {
			t.Errorf("Open: got %q, %v, want %q", key, err, "2")
		}
	}
	if string(got.Main) != "1" {
		t.Errorf("Main: got %q, want %q", got.Main, "1")
	}

	o.Read = func(name string) ([]byte, error) {
		return map[string][]byte{"/main": []byte("1"), "/key": []byte("2")}[name], nil
	}
	if want := receive(t, start(t, o)); got.Digest != want.Digest {
		t.Errorf("digest %s is not that of the bytes handed out, %s", got.Digest, want.Digest)
	}
}
