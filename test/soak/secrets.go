// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
)

// head is the number of bytes that identify a secret; shorter secrets are ignored.
const head = 8

// secrets searches a text for many secrets in one pass: there are tens of thousands,
// and logs of many megabytes. It is safe for concurrent use.
type secrets struct {
	mu     sync.RWMutex
	known  map[string]bool
	byHead map[[head]byte][]string
	forms  map[string]string // form → secret
}

func newSecrets() *secrets {
	return &secrets{known: map[string]bool{}, byHead: map[[head]byte][]string{}, forms: map[string]string{}}
}

// add adds secrets in the forms in which they could be printed: verbatim, in base64,
// in hexadecimal, and as fmt prints a []byte.
func (s *secrets) add(secrets ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, secret := range secrets {
		if len(secret) < head || s.known[secret] {
			continue
		}
		s.known[secret] = true
		for _, form := range []string{
			secret,
			base64.RawStdEncoding.EncodeToString([]byte(secret)),
			base64.RawURLEncoding.EncodeToString([]byte(secret)),
			hex.EncodeToString([]byte(secret)),
			strings.Trim(fmt.Sprint([]byte(secret)), "[]"),
		} {
			if _, twice := s.forms[form]; twice {
				continue
			}
			s.forms[form] = secret
			key := [head]byte([]byte(form))
			s.byHead[key] = append(s.byHead[key], form)
		}
	}
}

// find returns the first secret in a text.
func (s *secrets) find(text []byte) (secret string, found bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for ; len(text) >= head; text = text[1:] {
		for _, form := range s.byHead[[head]byte(text)] {
			if bytes.HasPrefix(text, []byte(form)) {
				return s.forms[form], true
			}
		}
	}
	return "", false
}
