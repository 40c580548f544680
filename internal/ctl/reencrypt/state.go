// SPDX-License-Identifier: Apache-2.0

package reencrypt

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
)

// state is a checkpoint in a file. It holds names of objects.
type state struct {
	file    string // empty for none
	resumed bool
	stored
}

// stored is the content of the file.
type stored struct {
	Version int `json:"version"`
	// Cluster and KeyIDHash say for which run the checkpoint is valid.
	Cluster   string               `json:"cluster"`
	KeyIDHash string               `json:"keyIDHash"`
	Resources map[string]*position `json:"resources"`
}

// position is the progress in a resource: all objects before Continue are done.
type position struct {
	Resource
	Continue string `json:"continue,omitempty"`
	Finished bool   `json:"finished"`
	// partial is what was done of the page at Continue, which the next run does again.
	// Here is what this run has done.
	partial, here Resource
}

const stateVersion = 1

// openState reads the file if it exists. A checkpoint of an earlier key_id is
// discarded.
func openState(ctx context.Context, file string, c *cluster, hash string) (*state, error) {
	s := &state{file: file, stored: stored{Version: stateVersion, KeyIDHash: hash, Resources: make(map[string]*position)}}
	if file == "" {
		return s, nil
	}
	var err error
	if s.Cluster, err = c.identity(ctx); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return s, s.save() // so that an error shows before the first page
	}
	if err != nil {
		return nil, err
	}
	var old stored
	switch err := json.Unmarshal(text, &old); {
	case err != nil || old.Version != stateVersion:
		return nil, fmt.Errorf("%s is not a state file of this command: give another file with --state", file)
	case old.Cluster != s.Cluster:
		return nil, fmt.Errorf("%s is the state of another cluster: give another file with --state", file)
	case old.KeyIDHash == hash && old.Resources != nil:
		s.Resources, s.resumed = old.Resources, len(old.Resources) > 0
	}
	return s, nil
}

// of returns the position in a resource.
func (s *state) of(resource string) *position {
	p := s.Resources[resource]
	if p == nil {
		p = &position{Resource: Resource{Name: resource}}
		s.Resources[resource] = p
	}
	return p
}

func (r *Resource) add(done Resource) {
	r.Objects += done.Objects
	r.Rewritten += done.Rewritten
	r.Current += done.Current
	r.Gone += done.Gone
	r.Failures = append(r.Failures, done.Failures...)
}

// total returns all that was done, also of a page that is not finished.
func (p *position) total() Resource {
	r := p.Resource
	r.Failures = slices.Clone(r.Failures)
	r.add(p.partial)
	return r
}

// save replaces the file atomically.
func (s *state) save() error {
	if s.file == "" {
		return nil
	}
	text, err := json.MarshalIndent(s.stored, "", "  ")
	if err != nil {
		return err
	}
	// A leftover of a killed run is overwritten.
	temporary, err := os.OpenFile(s.file+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("writing --state: %w", err)
	}
	defer func() { _ = os.Remove(temporary.Name()) }() // exists only if something fails
	_, err = temporary.Write(text)
	err = errors.Join(err, temporary.Sync(), temporary.Close())
	if err == nil {
		err = os.Rename(temporary.Name(), s.file)
	}
	if err != nil {
		return fmt.Errorf("writing --state: %w", err)
	}
	return nil
}

// remove deletes the file when all is done.
func (s *state) remove() error {
	if s.file == "" {
		return nil
	}
	return os.Remove(s.file)
}
