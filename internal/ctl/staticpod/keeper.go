// SPDX-License-Identifier: Apache-2.0

package staticpod

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Options say what to keep, and where.
type Options struct {
	// Manifest is a revision of the static pod.
	Manifest Manifest
	// Directory is kubelet's manifest directory. It must exist, and its parent must be
	// writable: a new manifest is made there.
	Directory string
	// Credentials is a directory with files to copy to the node, such as a mounted Secret;
	// "" means none.
	Credentials string
	// Remove removes all revisions and what was copied, and keeps nothing.
	Remove bool
	// Poll is the time between two passes.
	Poll time.Duration
	// Logger may be nil: nothing is logged.
	Logger *zap.Logger
}

// Keeper keeps one static pod on one node. It has no state of its own: what it does
// follows from the files alone, so it may end at any time.
type Keeper struct {
	Options
	disk disk
	// own is the directory of everything that the keeper writes, except for manifests.
	own string

	mu    sync.Mutex
	state error // what State returns
}

// New returns a keeper, or an error if the manifest is not a whole revision.
func New(o Options) (*Keeper, error) {
	if err := o.Manifest.Verify(); err != nil {
		return nil, err
	}
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	o.Directory = filepath.Clean(o.Directory)
	o.Logger = o.Logger.With(zap.String("pod", o.Manifest.Name))
	return &Keeper{
		Options: o,
		own:     filepath.Join(filepath.Dir(o.Directory), "trousseau.d", o.Manifest.Namespace+"."+o.Manifest.App),
		state:   errors.New("the first pass is not done"),
	}, nil
}

// Run makes pass after pass until ctx is done, and leaves everything as it is then.
func (k *Keeper) Run(ctx context.Context) {
	for last := k.State(); ; {
		err := k.Pass(ctx)
		if ctx.Err() != nil {
			return
		}
		k.mu.Lock()
		k.state = err
		k.mu.Unlock()
		switch {
		case fmt.Sprint(err) == fmt.Sprint(last):
		case err != nil:
			k.Logger.Warn("not done, trying again", zap.Error(err))
		case k.Remove:
			k.Logger.Info("nothing is left on this node")
		default:
			k.Logger.Info("the key is proven and no other revision is left")
		}
		last = err
		select {
		case <-ctx.Done():
			return
		case <-time.After(k.Poll):
		}
	}
}

// State returns nil if the last pass had nothing left to do or to wait for, and
// otherwise what.
func (k *Keeper) State() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.state
}

// Health serves State at /readyz.
func (k *Keeper) Health() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := k.State(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, "ok\n")
	})
	return mux
}

// Pass does what is to be done now, and returns nil if nothing is left to do or to wait
// for. It never waits longer than it takes a process to answer.
func (k *Keeper) Pass(ctx context.Context) error {
	if k.Remove {
		return k.clear(ctx)
	}
	// Without credentials the pod may not start, but without a manifest it cannot.
	credentials := k.keepCredentials()
	if err := k.put(); err != nil {
		return errors.Join(credentials, err)
	}
	if err := k.proven(ctx); err != nil {
		return errors.Join(credentials, err)
	}
	if err := k.removeManifests(k.Manifest.succeeds); err != nil || credentials != nil {
		return errors.Join(credentials, err)
	}
	if k.Credentials == "" {
		return k.disk.remove(k.copied())
	}
	return nil
}

// put makes the manifest in the keeper's directory, which kubelet does not read, and
// moves it to its place.
func (k *Keeper) put() error {
	path := filepath.Join(k.Directory, k.Manifest.file())
	if text, err := read(path); err == nil && bytes.Equal(text, k.Manifest.Text) {
		return nil
	}
	if _, err := os.Stat(k.Directory); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: set installer.manifestDirectory to the staticPodPath of this node's kubelet", err)
	}
	staged := filepath.Join(k.own, "manifest.yaml")
	if err := k.disk.mkdir(k.own); err != nil {
		return err
	}
	if err := k.disk.write(staged, k.Manifest.Text); err != nil {
		return err
	}
	if err := k.disk.rename(staged, path); err != nil {
		return err
	}
	k.Logger.Info("manifest written", zap.String("file", path))
	return nil
}

// removeManifests removes the manifests that are chosen by name and content, and nothing
// else.
func (k *Keeper) removeManifests(chosen func(file string, m Manifest) bool) error {
	files, err := os.ReadDir(k.Directory)
	if err != nil {
		return err
	}
	for _, file := range files {
		name := revisionEnd.FindStringSubmatch(strings.TrimSuffix(file.Name(), ".yaml"))
		if !file.Type().IsRegular() || name == nil || name[1] != k.Manifest.App {
			continue
		}
		path := filepath.Join(k.Directory, file.Name())
		text, err := read(path)
		if err != nil {
			return err
		}
		m, err := Parse(text)
		if err != nil || !chosen(file.Name(), m) {
			continue
		}
		if err := k.disk.remove(path); err != nil {
			return err
		}
		k.Logger.Info("manifest removed", zap.String("file", path))
	}
	return nil
}

// clear removes all revisions and, when the process has ended, what was copied.
func (k *Keeper) clear(ctx context.Context) error {
	if err := k.removeManifests(func(file string, m Manifest) bool {
		return k.Manifest.succeeds(file, m) || file == k.Manifest.file() && m.Name == k.Manifest.Name
	}); err != nil {
		return err
	}
	if _, err := k.ask(ctx); err == nil {
		return errors.New("the manifest is removed, and kubelet has not ended the pod yet")
	}
	if err := k.disk.remove(k.own); err != nil {
		return err
	}
	_ = os.Remove(filepath.Dir(k.own)) // another release may have a directory there
	return nil
}

// proven returns why this revision has not proven the key yet.
func (k *Keeper) proven(ctx context.Context) error {
	page, err := k.ask(ctx)
	if err != nil {
		return fmt.Errorf("the manifest is in place, but its process does not answer yet: %w: check the pod with kubectl -n %s describe pods, and kubelet's log on this node",
			err, k.Manifest.Namespace)
	}
	if page != "" {
		return fmt.Errorf("the key is not proven yet: %s", page)
	}
	return nil
}

func read(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, maxManifest))
}
