// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"bytes"
	"context"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
)

// ledger records every plaintext that was sent and every error that was returned. It
// is safe for concurrent use.
type ledger struct {
	mu         sync.Mutex
	plaintexts [][]byte
	errors     map[string]map[string]bool // messages, by method
}

func (l *ledger) sent(plaintext []byte) {
	// A shorter one could occur by chance.
	if len(plaintext) < 16 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.plaintexts = append(l.plaintexts, bytes.Clone(plaintext))
}

// intercept records the errors of a connection's calls.
func (l *ledger) intercept(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	err := invoke(ctx, method, req, reply, conn, opts...)
	if err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		name := path.Base(method)
		if l.errors == nil {
			l.errors = make(map[string]map[string]bool)
		}
		if l.errors[name] == nil {
			l.errors[name] = make(map[string]bool)
		}
		l.errors[name][status.Convert(err).Message()] = true
	}
	return err
}

// leaks returns the number of distinct errors, and the methods whose errors contain a
// plaintext, each with the form of the plaintext in it.
func (l *ledger) leaks() (errors int, leaks map[string]string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	texts := make(map[string]string)
	for method, messages := range l.errors {
		errors += len(messages)
		texts[method] = strings.Join(slices.Sorted(maps.Keys(messages)), "\n")
	}
	leaks = make(map[string]string)
	for _, plaintext := range l.plaintexts {
		traces := tracesOf(plaintext)
		for method, text := range texts {
			if form, found := formIn(text, traces); found {
				leaks[method] = form
			}
		}
	}
	return errors, leaks
}
