// SPDX-License-Identifier: Apache-2.0

package kms

import (
	"context"

	"github.com/trousseau-io/trousseau/internal/seed"
)

// decryptOnce decrypts, sharing the work among concurrent callers that ask for
// the same thing: kube-apiserver has no single-flight of its own, and at its
// start asks for one seed as often as objects are under it.
//
// The work is no caller's own: who goes away fails nobody else. A failure is
// shared only once, because who joined late may have time for another attempt.
func (s *Server) decryptOnce(ctx context.Context, wrapped seed.Wrapped) ([]byte, error) {
	flight := wrapped.Identity()
	for retried := false; ; retried = true {
		own := false
		done := s.flights.DoChan(flight, func() (any, error) {
			own = true
			work, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.timeout)
			defer cancel()
			return s.decryptShielded(work, wrapped)
		})
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case result := <-done:
			if result.Err != nil && !own && !retried {
				continue
			}
			plaintext, _ := result.Val.([]byte)
			return plaintext, result.Err
		}
	}
}

// decryptShielded turns a panic into an error, because the flight is not on a
// goroutine that the interceptor guards.
func (s *Server) decryptShielded(ctx context.Context, wrapped seed.Wrapped) (plaintext []byte, err error) {
	defer s.rescue("Decrypt", &err)
	return s.kek.Decrypt(ctx, wrapped)
}
