// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
	"github.com/trousseau-io/trousseau/internal/vault"
)

// BenchmarkTransport compares the client's pool of HTTP/1.1 connections with one HTTP/2 connection, over TLS. They
// alternate in one run, so that a noisy machine slows both alike. h1/h2 is the ratio of their times: below 1 the
// pool is faster.
func BenchmarkTransport(b *testing.B) {
	s := vaulttest.Start(b, vaulttest.Options{TLS: true})
	s.CreateKey("kek")
	pool := dial(b, s, nil)
	multiplexed := dial(b, s, func(cfg *vault.Config) { cfg.Transport = http2Transport(b, s) })
	for _, callers := range []int{1, 16, 128} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			// Connect before the measurement.
			measure(b, pool, callers, 4*callers)
			measure(b, multiplexed, callers, 4*callers)
			var h1, h2 time.Duration
			b.ResetTimer()
			for done := 0; done < b.N; {
				n := min(b.N-done, 8*callers)
				h1 += measure(b, pool, callers, n)
				h2 += measure(b, multiplexed, callers, n)
				done += n
			}
			b.StopTimer()
			b.ReportMetric(0, "ns/op") // would be the sum of both
			b.ReportMetric(float64(h1.Nanoseconds())/float64(b.N), "h1-ns/call")
			b.ReportMetric(float64(h2.Nanoseconds())/float64(b.N), "h2-ns/call")
			b.ReportMetric(h1.Seconds()/h2.Seconds(), "h1/h2")
		})
	}
}

// measure divides n calls among callers and returns the elapsed time.
func measure(b *testing.B, c *vault.Client, callers, n int) time.Duration {
	b.Helper()
	seed := []byte(strings.Repeat("s", 32))
	var next atomic.Int64
	var working sync.WaitGroup
	start := time.Now()
	for range callers {
		working.Go(func() {
			for next.Add(1) <= int64(n) {
				if _, _, err := c.Encrypt(b.Context(), "kek", 1, seed, nil); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	working.Wait()
	return time.Since(start)
}

// http2Transport is the client's transport with HTTP/2 and with pings, because all calls depend on one connection.
func http2Transport(b *testing.B, s *vaulttest.Server) *http.Transport {
	b.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(s.CAPEM()) {
		b.Fatal("no CA")
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	transport := &http.Transport{
		TLSClientConfig:    &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
		Protocols:          protocols,
		HTTP2:              &http.HTTP2Config{SendPingTimeout: 5 * time.Second, PingTimeout: 2 * time.Second},
		DisableCompression: true,
	}
	b.Cleanup(transport.CloseIdleConnections)
	return transport
}
