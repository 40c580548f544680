// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"math/rand/v2"
	"time"

	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

// revocation says when the old token is revoked.
type revocation int

const (
	revokeAtOnce revocation = iota
	revokeLater
	revokeBefore
)

// rotateToken makes the agent render a new token. An operator's script can also
// revoke the old token just before that.
func rotateToken(when revocation) func(*stage, *rand.Rand) (func() error, error) {
	return func(s *stage, random *rand.Rand) (func() error, error) {
		old := s.agent.token()
		fresh := s.mint()
		if when == revokeBefore {
			s.vault.Revoke(old)
			time.Sleep(time.Duration(random.IntN(200)) * time.Millisecond)
		}
		s.agent.renderToken(fresh)
		if when == revokeAtOnce {
			s.vault.Revoke(old)
		}
		return func() error {
			s.vault.Revoke(old)
			return nil
		}, nil
	}
}

// keepRotating rotates the token several times a second, to find leaks caused by
// reloads.
func keepRotating(s *stage, random *rand.Rand) (func() error, error) {
	rotate := rotateToken(revokeAtOnce)
	stopped, ended := make(chan struct{}), make(chan error)
	go func() {
		for {
			if _, err := rotate(s, random); err != nil {
				ended <- err
				return
			}
			select {
			case <-stopped:
				ended <- nil
				return
			case <-time.After(300 * time.Millisecond):
			}
		}
	}()
	return func() error {
		close(stopped)
		return <-ended
	}, nil
}

// moveClock makes tokens, which live for 768 hours, expire early or late. At the end
// the clock is correct and the agent has logged in again.
func moveClock(s *stage, random *rand.Rand) (func() error, error) {
	const farthest = 1200 // hours
	s.clock.Store(int64(time.Duration(random.IntN(2*farthest)-farthest) * time.Hour))
	return func() error {
		s.clock.Store(0)
		s.agent.renderToken(s.mint())
		return nil
	}, nil
}

func rotateKey(s *stage, _ *rand.Rand) (func() error, error) {
	s.key.Rotate()
	return func() error { return nil }, nil
}

func sealVault(s *stage, _ *rand.Rand) (func() error, error) {
	s.vault.Seal()
	return func() error {
		s.vault.Unseal()
		return nil
	}, nil
}

func stopVault(s *stage, _ *rand.Rand) (func() error, error) {
	s.network.Refuse()
	s.vault.Stop()
	return func() error { return errors.Join(s.vault.Start(), s.network.Pass()) }, nil
}

func slowVault(s *stage, random *rand.Rand) (func() error, error) {
	delay := time.Duration(20+random.IntN(4000)) * time.Millisecond
	return layOver(vaulttest.Fault{Delay: delay})(s, random)
}

func failRequests(s *stage, random *rand.Rand) (func() error, error) {
	remove := s.vault.FailRate(0.3, random.Uint64())
	return func() error {
		remove()
		return nil
	}, nil
}

// layOver injects a fault into Vault.
func layOver(f vaulttest.Fault) func(*stage, *rand.Rand) (func() error, error) {
	return func(s *stage, random *rand.Rand) (func() error, error) {
		f := f
		f.Seed = random.Uint64()
		remove := s.vault.Inject(f)
		return func() error {
			remove()
			return nil
		}, nil
	}
}

// swapCA gives Vault a certificate from a new CA, and updates the file beside
// config.yaml only at the end. Existing connections stay open, so some are cut.
func swapCA(s *stage, random *rand.Rand) (func() error, error) {
	if err := s.vault.RotateCA(); err != nil {
		return nil, err
	}
	remove := func() {}
	if n := random.IntN(10); n > 0 {
		remove = s.vault.Cut(n)
	}
	return func() error {
		remove()
		s.agent.put(caFile, s.authorities())
		return nil
	}, nil
}
