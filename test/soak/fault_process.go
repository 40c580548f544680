// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

func killProcess(s *stage, _ *rand.Rand) (func() error, error) {
	s.daemon.kill()
	return s.daemon.start, nil
}

func stopProcess(s *stage, _ *rand.Rand) (func() error, error) {
	if err := s.daemon.stop(); err != nil {
		return nil, err
	}
	return s.daemon.start, nil
}

// takeOver starts a second process, which takes the socket once it has proven
// itself. If Vault is unavailable, that may be after the end of this fault.
func takeOver(s *stage, _ *rand.Rand) (func() error, error) {
	return func() error { return nil }, s.daemon.takeOver()
}

// exhaustDescriptors holds more connections to the socket than trousseau may open
// files. They send the start of an HTTP/2 connection and then nothing.
func exhaustDescriptors(s *stage, _ *rand.Rand) (func() error, error) {
	const held = maxFiles + 50
	ctx, stop := context.WithCancel(context.Background())
	var all sync.WaitGroup
	s.starving.Store(true)
	for range held {
		all.Go(func() { keepConnected(ctx, s.daemon.socket) })
	}
	return func() error {
		stop()
		all.Wait()
		s.starving.Store(false)
		return nil
	}, nil
}

// keepConnected keeps a connection to a socket until ctx is done, and reconnects if
// it is closed.
func keepConnected(ctx context.Context, socket string) {
	const again = 500 * time.Millisecond
	for {
		if conn, err := new(net.Dialer).DialContext(ctx, "unix", socket); err == nil {
			leave := context.AfterFunc(ctx, func() { _ = conn.Close() })
			greet(conn)
			leave()
			_ = conn.Close()
		}
		if sleep(ctx, again) != nil {
			return
		}
	}
}

// greeting is the start of an HTTP/2 connection: the preface and empty SETTINGS (RFC
// 9113, sections 3.4 and 6.5).
const greeting = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + "\x00\x00\x00\x04\x00\x00\x00\x00\x00"

// greet sends greeting and reads until the connection ends.
func greet(conn net.Conn) {
	if _, err := io.WriteString(conn, greeting); err != nil {
		return
	}
	// The copy ends with the connection, whichever side closes it.
	_, _ = io.Copy(io.Discard, conn)
}
