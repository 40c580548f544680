// SPDX-License-Identifier: Apache-2.0

package reencrypt

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// state is how far the work is, in a file. It holds names of objects.
type state struct {
	file    string // empty for none
	resumed bool
	stored
}

// stored is the content of the file.
type stored struct {
	Version int `json:"version"`
	// Cluster and KeyIDHash say what the rest is about.
	Cluster   string               `json:"cluster"`
	KeyIDHash string               `json:"keyIDHash"`
	Resources map[string]*position `json:"resources"`
}

// position is where in a resource the work is: all before Continue is done.
type position struct {
	Resource
	Continue string `json:"continue,omitempty"`
	Finished bool   `json:"finished"`
}

const stateVersion = 1

// openState reads the file if it is there. One about an earlier key_id is of no
// use, and is begun anew.
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
		return s, s.save() // better now than after the first page
	}
	if err != nil {
		return nil, err
	}
	var old stored
	switch err := json.Unmarshal(text, &old); {
	case err != nil || old.Version != stateVersion:
		return nil, fmt.Errorf("%s is no state of this command's: give another file as --state", file)
	case old.Cluster != s.Cluster:
		return nil, fmt.Errorf("%s is about another cluster: give another file as --state", file)
	case old.KeyIDHash == hash && old.Resources != nil:
		s.Resources, s.resumed = old.Resources, len(old.Resources) > 0
	}
	return s, nil
}

// of is where the work is in a resource.
func (s *state) of(resource string) *position {
	p := s.Resources[resource]
	if p == nil {
		p = &position{Resource: Resource{Name: resource}}
		s.Resources[resource] = p
	}
	return p
}

func (p *position) add(done Resource) {
	p.Objects += done.Objects
	p.Rewritten += done.Rewritten
	p.Current += done.Current
	p.Gone += done.Gone
	p.Failures = append(p.Failures, done.Failures...)
}

// save replaces the file at once: a kill leaves the old one or the new one.
func (s *state) save() error {
	if s.file == "" {
		return nil
	}
	text, err := json.MarshalIndent(s.stored, "", "  ")
	if err != nil {
		return err
	}
	// The next run writes over one that a kill has left.
	temporary, err := os.OpenFile(s.file+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("writing --state: %w", err)
	}
	defer func() { _ = os.Remove(temporary.Name()) }() // it is there only if something fails
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

// remove takes the file away, once there is nothing to go on with.
func (s *state) remove() error {
	if s.file == "" {
		return nil
	}
	return os.Remove(s.file)
}
