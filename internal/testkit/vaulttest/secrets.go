// SPDX-License-Identifier: Apache-2.0

package vaulttest

import (
	"encoding/base64"
	"encoding/hex"
	"maps"
	"slices"
	"strings"
	"sync"
)

// secrets holds every token, credential and plaintext that the cluster has received or issued.
type secrets struct {
	mu   sync.Mutex
	seen map[string]struct{}
}

func (s *secrets) add(secret string) {
	if secret == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen == nil {
		s.seen = map[string]struct{}{}
	}
	s.seen[secret] = struct{}{}
}

// note records the secrets in a request, even if a fault stops it.
func (s *secrets) note(in *request) {
	s.add(in.token)
	switch in.op {
	case OpLogin:
		for _, name := range []string{"secret_id", "jwt"} {
			credential, _ := in.fields.values[name].(string)
			s.add(strings.TrimSpace(credential))
		}
	case OpWriteAuthConfig:
		reviewer, _ := in.fields.values["token_reviewer_jwt"].(string)
		s.add(reviewer)
	case OpEncrypt:
		batch, _ := in.fields.values["batch_input"].([]any)
		for _, given := range append(batch, in.fields.values) {
			item, _ := given.(map[string]any)
			encoded, _ := item["plaintext"].(string)
			if plaintext, err := base64.StdEncoding.DecodeString(encoded); err == nil {
				s.add(string(plaintext))
			}
		}
	}
}

// Secrets returns all secrets that the cluster has received or issued, sorted: tokens, secret IDs, JWTs and
// decoded plaintexts.
func (s *Server) Secrets() []string {
	s.store.secrets.mu.Lock()
	defer s.store.secrets.mu.Unlock()
	return slices.Sorted(maps.Keys(s.store.secrets.seen))
}

// Leak searches a text, such as a log, for a secret: verbatim, in base64 and in hexadecimal. It returns the first
// secret found. Secrets shorter than six bytes are ignored, because they occur by chance.
func (s *Server) Leak(text string) (secret string, found bool) {
	for _, secret := range s.Secrets() {
		if len(secret) < 6 {
			continue
		}
		for _, form := range []string{
			secret,
			base64.RawStdEncoding.EncodeToString([]byte(secret)),
			base64.RawURLEncoding.EncodeToString([]byte(secret)),
			hex.EncodeToString([]byte(secret)),
		} {
			if strings.Contains(text, form) {
				return secret, true
			}
		}
	}
	return "", false
}
