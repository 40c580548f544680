// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math/rand/v2"
	"slices"
	"sync"

	kmsapi "k8s.io/kms/apis/v2"
)

// wrapped is a plaintext and the response of Encrypt to it.
type wrapped struct {
	plaintext []byte
	response  *kmsapi.EncryptResponse
}

// ledger holds everything ever encrypted and every key_id that Status reported. It
// is safe for concurrent use.
type ledger struct {
	mu       sync.Mutex
	entries  []wrapped
	reported map[string]bool
}

func newLedger() *ledger { return &ledger{reported: map[string]bool{}} }

func (l *ledger) add(w wrapped) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = append(l.entries, w)
}

// any returns a random entry, or false if there is none.
func (l *ledger) any() (wrapped, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.entries) == 0 {
		return wrapped{}, false
	}
	return l.entries[rand.IntN(len(l.entries))], true
}

func (l *ledger) all() []wrapped {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.entries)
}

func (l *ledger) report(keyID string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reported[keyID] = true
}

func (l *ledger) wasReported(keyID string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reported[keyID]
}

// keyIDs returns how many key_ids Status has reported.
func (l *ledger) keyIDs() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.reported)
}
