// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"time"
)

// Invariants that always hold are checked where they can break: answers in load.go,
// ends of processes in daemon.go, Status in evidence.go. This file has the checks between faults.

const (
	// recoverWithin bounds the recovery after the last fault.
	recoverWithin = 15 * time.Second
	// settleWithin bounds the time until a storm's leftovers are gone: a replaced
	// client is closed after --request-timeout, 2.5 seconds.
	settleWithin = 10 * time.Second
)

// recovered waits until trousseau is healthy and returns how long that took.
func (s *soak) recovered(ctx context.Context) (took time.Duration, err error) {
	began := time.Now()
	s.unwell = nil
	for {
		// The requests must not shorten our own deadline.
		bounded, cancel := context.WithDeadline(ctx, began.Add(recoverWithin))
		err := s.healthy(bounded)
		if bounded.Err() != nil && s.unwell != nil {
			err = s.unwell // It says more than "deadline exceeded".
		}
		cancel()
		took := time.Since(began)
		if err != nil {
			// Operators see this text on /readyz, and kube-apiserver sees it in Status.
			if secret, found := s.stage.secrets.find([]byte(err.Error())); found {
				return took, violatedf("the reason for being unhealthy contains a secret (%.4s…)", secret)
			}
		}
		switch {
		case err == nil:
			return took, nil
		case ctx.Err() != nil:
			return took, context.Cause(ctx)
		case took > recoverWithin:
			return took, violatedf("not healthy within %s of the last fault: %v", recoverWithin, err)
		}
		s.unwell = err
		time.Sleep(50 * time.Millisecond)
	}
}

// healthy returns nil if exactly one process serves, Status is ok, a round trip
// succeeds and /readyz answers 200.
func (s *soak) healthy(ctx context.Context) error {
	if err := s.stage.daemon.settled(); err != nil {
		return err
	}
	if err := s.load.status(ctx, s.client); err != nil {
		return fmt.Errorf("status: %w", err)
	}
	w, err := s.load.encrypt(ctx, s.client)
	if err != nil {
		return fmt.Errorf("encrypting: %w", err)
	}
	if err := s.load.decrypt(ctx, s.client, w); err != nil {
		return fmt.Errorf("decrypting: %w", err)
	}
	code, text, err := s.pages.Ready(ctx)
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("/readyz answered %d: %s", code, text)
	}
	return err
}

// calmed checks the invariants that hold between storms.
func (s *soak) calmed(ctx context.Context) (string, error) {
	n, err := s.load.sweep(ctx, s.client)
	if err != nil {
		return "", err
	}
	f, err := s.nothingLeftOver(ctx)
	if err != nil {
		return "", err
	}
	if err := s.nothingLeaked(); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d ciphertexts decrypted; %s", n, f), nil
}

// footprint holds the figures that must not grow.
type footprint struct {
	// Both exclude connections to Vault: each is a file and two goroutines, and their
	// number depends on the last burst.
	goroutines, files float64
	connections       int     // to Vault
	memory            float64 // resident, in MiB
}

func (f footprint) String() string {
	return fmt.Sprintf("%.0f goroutines, %.0f files, %d connections to Vault, %.0f MiB", f.goroutines, f.files, f.connections, f.memory)
}

// within reports whether f is at most before, apart from normal fluctuation.
func (f footprint) within(before footprint) bool {
	const (
		// Requests in progress, for example /metrics itself.
		goroutines, files = 2, 1
		// A burst has as many requests as there are callers, plus the prober and the
		// loader. A request that waits for a connection may get another one, which makes
		// two.
		connections = 2 * (callers + sweepers + 2)
		// Memory that the Go runtime has not returned yet. The peak is during file
		// descriptor exhaustion: about 8 MiB for maxFiles connections, of which the
		// runtime keeps several times as much.
		memory = 24
	)
	return f.goroutines <= before.goroutines+goroutines && f.files <= before.files+files &&
		f.connections <= connections && f.memory <= before.memory+memory
}

// nothingLeftOver compares the footprint of the process with that in its first calm.
func (s *soak) nothingLeftOver(ctx context.Context) (footprint, error) {
	// Pause between two looks, so that some fall between requests.
	const pause = 110 * time.Millisecond
	if _, starts := s.stage.daemon.pid(); s.measured != starts {
		s.measured, s.before = starts, footprint{goroutines: math.Inf(1)}
		for range 10 {
			f, err := s.measure(ctx)
			if err != nil {
				return f, err
			}
			if f.goroutines < s.before.goroutines {
				s.before = f
			}
			time.Sleep(pause)
		}
	}
	for end := time.Now().Add(settleWithin); ; time.Sleep(pause) {
		f, err := s.measure(ctx)
		if err != nil || f.within(s.before) {
			return f, err
		}
		if time.Now().After(end) {
			return f, violatedf("trousseau has grown: %s, but %s in the process's first calm", f, s.before)
		}
	}
}

// measure reads /metrics, which must not contain a secret or report a panic.
func (s *soak) measure(ctx context.Context) (footprint, error) {
	page, err := s.pages.Metrics(ctx)
	for range 4 {
		if err == nil || ctx.Err() != nil {
			break
		}
		// A busy machine may be the cause.
		page, err = s.pages.Metrics(ctx)
	}
	if err != nil {
		return footprint{}, violatedf("reading the metrics in a calm: %v", err)
	}
	if secret, found := s.stage.known().find([]byte(page)); found {
		return footprint{}, violatedf("a secret (%.4s…) is on the metrics page", secret)
	}
	value := func(name string) float64 {
		n, _, parseErr := page.Sum(name)
		err = errors.Join(err, parseErr)
		return n
	}
	if n := value("trousseau_kms_panics_total"); n != 0 {
		return footprint{}, violatedf("%.0f requests panicked", n)
	}
	connections := s.stage.connections()
	return footprint{
		goroutines:  value("go_goroutines") - 2*float64(connections),
		files:       value("process_open_fds") - float64(connections),
		connections: connections,
		memory:      value("process_resident_memory_bytes") / (1 << 20),
	}, err
}

// nothingLeaked searches the log written since the last call for secrets.
func (s *soak) nothingLeaked() error {
	// Read an incomplete line again next time: it may contain half a secret.
	const longestLine = 64 << 10
	text, err := io.ReadAll(io.NewSectionReader(s.stage.daemon.log, s.searched, 1<<40))
	if err != nil {
		return fmt.Errorf("reading the log: %w", err)
	}
	if secret, found := s.stage.known().find(text); found {
		return violatedf("a secret (%.4s…) is in the log", secret)
	}
	s.searched += max(0, int64(len(text))-longestLine)
	return nil
}
