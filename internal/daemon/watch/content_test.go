// SPDX-License-Identifier: Apache-2.0

package watch_test

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
)

// named returns a Parse that opens the files in root named by the lines of the main
// file.
func named(root dir) func([]byte, func(string) ([]byte, error)) (parsed, error) {
	return opening(func(main string) (names []string) {
		for line := range strings.Lines(main) {
			names = append(names, root.at(strings.TrimSpace(line)))
		}
		return names
	})
}

// awaitOpen receives until the named file has the content want.
func awaitOpen(t *testing.T, w *watcher, name, want string) {
	t.Helper()
	timeout := time.After(bound)
	for {
		select {
		case c := <-w.Contents():
			if got := c.Value.files[name]; got.err == nil && got.text == want {
				return
			}
		case <-timeout:
			t.Fatalf("not received within %v: %s holding %q", bound, name, want)
		}
	}
}

func TestOpenedFiles(t *testing.T) {
	t.Parallel()
	root := newDir(t)
	root.write("etc/config.yaml", "tls/cert\ntls/key\n")
	root.write("tls/cert", "cert 1")
	root.write("other/token", "token 1")
	w := start(t, options{Path: root.at("etc/config.yaml"), Parse: named(root), Poll: time.Hour})

	c := receive(t, w)
	if got := c.Value.files[root.at("tls/cert")]; got.err != nil || got.text != "cert 1" {
		t.Errorf("opening cert: got %q, %v, want %q", got.text, got.err, "cert 1")
	}
	if got := c.Value.files[root.at("tls/key")]; !errors.Is(got.err, fs.ErrNotExist) {
		t.Errorf("opening key, which does not exist: got error %v, want fs.ErrNotExist", got.err)
	}

	root.write("tls/key", "key 1")
	awaitOpen(t, w, root.at("tls/key"), "key 1")
	root.render("tls/cert", "cert 2")
	awaitOpen(t, w, root.at("tls/cert"), "cert 2")

	root.render("etc/config.yaml", "other/token\n")
	awaitOpen(t, w, root.at("other/token"), "token 1")
	root.render("other/token", "token 2")
	awaitOpen(t, w, root.at("other/token"), "token 2")
}

// TestParseFailure checks that a value refused because of a file is reported with
// the parser's error, and parsed again when that file changes.
func TestParseFailure(t *testing.T) {
	t.Parallel()
	root := newDir(t)
	root.write("etc/config.yaml", "main")
	root.mkdir("tls")
	refused := errors.New("refused")
	w := start(t, options{
		Path: root.at("etc/config.yaml"),
		Poll: time.Hour,
		Parse: func(main []byte, open func(string) ([]byte, error)) (parsed, error) {
			if data, err := open(root.at("tls/key")); err != nil || string(data) != "good" {
				return parsed{}, refused
			}
			return parsed{main: string(main)}, nil
		},
	})
	if c := receive(t, w); !errors.Is(c.Err, refused) || c.Digest == "" {
		t.Errorf("got digest %q, error %v, want a digest and the parser's error", c.Digest, c.Err)
	}
	root.render("tls/key", "good")
	await(t, w, "main")
	root.render("tls/key", "bad")
	if c := await(t, w, unreadable); !errors.Is(c.Err, refused) {
		t.Errorf("got error %v, want the parser's", c.Err)
	}
}

func TestWatchesAreDropped(t *testing.T) {
	t.Parallel()
	root := newDir(t)
	root.write("etc/config.yaml", "tls/cert\n")
	root.write("tls/cert", "cert")
	root.write("other/token", "token")
	inotify := make(chan *fsnotify.Watcher, 1)
	w := start(t, options{Path: root.at("etc/config.yaml"), Parse: named(root), Poll: time.Hour}.WithNotify(
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

// TestDigest compares the digests of equal and different sets of files.
func TestDigest(t *testing.T) {
	t.Parallel()
	const main = "/main"
	broken, alsoBroken := errors.New("broken"), errors.New("also broken")
	type set struct {
		files  map[string]any // content as a string, or the error of reading it
		opened []string
	}
	base := set{map[string]any{main: "m", "/a": "1", "/b": "2"}, []string{"/a", "/b"}}
	for _, tc := range []struct {
		name string
		set  set
		same bool
	}{
		{"same", base, true},
		{"another order", set{base.files, []string{"/b", "/a"}}, true},
		{"opened twice", set{base.files, []string{"/a", "/b", "/a"}}, true},
		{"main opened as well", set{base.files, []string{"/a", "/b", main}}, true},
		{"main differs", set{map[string]any{main: "n", "/a": "1", "/b": "2"}, base.opened}, false},
		{"other differs", set{map[string]any{main: "m", "/a": "1", "/b": "3"}, base.opened}, false},
		{"contents swapped", set{map[string]any{main: "m", "/a": "2", "/b": "1"}, base.opened}, false},
		{"bytes moved to the neighbour", set{map[string]any{main: "m", "/a": "12", "/b": ""}, base.opened}, false},
		{"content that looks like the neighbour", set{map[string]any{main: "m", "/a": "1\n2f62 data 32"}, []string{"/a"}}, false},
		{"fewer opened", set{base.files, []string{"/a"}}, false},
		{"another name", set{map[string]any{main: "m", "/a": "1", "/c": "2"}, []string{"/a", "/c"}}, false},
		{"other unreadable", set{map[string]any{main: "m", "/a": "1", "/b": broken}, base.opened}, false},
		{"other holds the error's text", set{map[string]any{main: "m", "/a": "1", "/b": "broken"}, base.opened}, false},
		{"other empty", set{map[string]any{main: "m", "/a": "1", "/b": ""}, base.opened}, false},
		{"main unreadable", set{map[string]any{main: broken}, nil}, false},
		{"main unreadable otherwise", set{map[string]any{main: alsoBroken}, nil}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			digest := func(s set) string {
				return receive(t, start(t, options{
					Path:  main,
					Parse: opening(func(string) []string { return s.opened }),
					Read: func(name string) ([]byte, error) {
						if err, ok := s.files[name].(error); ok {
							return nil, err
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
	root := newDir(t)
	c := receive(t, start(t, options{
		Path: root.at("config.yaml"),
		Parse: func([]byte, func(string) ([]byte, error)) (parsed, error) {
			t.Error("parsed a file that could not be read")
			return parsed{}, nil
		},
	}))
	if !errors.Is(c.Err, fs.ErrNotExist) || c.Digest == "" || c.Path != root.at("config.yaml") {
		t.Errorf("got path %q, digest %q, error %v, want the path, a digest and fs.ErrNotExist", c.Path, c.Digest, c.Err)
	}
}

// Files with different content at each read show that the hashed and the parsed
// bytes are the same.
func TestEachFileIsReadOncePerLook(t *testing.T) {
	t.Parallel()
	var parses, reads int
	twice := opening(func(string) []string { return []string{"/key", "/main", "/key"} })
	o := options{Path: "/main", Poll: time.Hour}.WithNotify(exhausted)
	o.Parse = func(main []byte, open func(string) ([]byte, error)) (parsed, error) {
		parses++
		return twice(main, open)
	}
	o.Read = func(string) ([]byte, error) {
		reads++
		return fmt.Append(nil, reads), nil
	}
	got := receive(t, start(t, o))
	if got.Value.main != "1" || got.Value.files["/main"].text != "1" || got.Value.files["/key"].text != "2" {
		t.Errorf("parsed %v, want 1 from the main file and 2 from the key", got.Value)
	}
	if parses != 1 || reads != 2 {
		t.Errorf("got %d parses and %d reads, want 1 and 2", parses, reads)
	}

	o.Read = func(name string) ([]byte, error) {
		return map[string][]byte{"/main": []byte("1"), "/key": []byte("2")}[name], nil
	}
	if want := receive(t, start(t, o)); got.Digest != want.Digest {
		t.Errorf("digest %s is not that of the bytes parsed, %s", got.Digest, want.Digest)
	}
}
