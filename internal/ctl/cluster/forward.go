// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/streaming/pkg/httpstream"

	"github.com/trousseau-io/trousseau/internal/ctl/fleet"
	"github.com/trousseau-io/trousseau/internal/ctl/text"
)

// forwarder connects to the ops endpoints of a pod as kubectl port-forward does: kubelet
// dials the port on the loopback address in the pod's network. The API server's pod
// proxy would dial the pod's IP, where the chart does not listen by default.
func (c *Cluster) forwarder(p corev1.Pod) func(context.Context) (net.Conn, error) {
	port := opsPort(p)
	return func(ctx context.Context) (net.Conn, error) {
		dialer, err := c.dialer(p)
		if err != nil {
			return nil, err
		}
		type dialed struct {
			conn net.Conn
			err  error
		}
		// The dialer takes no context. A connection that comes too late is closed.
		done := make(chan dialed)
		go func() {
			conn, err := open(dialer, port)
			select {
			case done <- dialed{conn, err}:
			case <-ctx.Done():
				if err == nil {
					_ = conn.Close()
				}
			}
		}()
		select {
		case d := <-done:
			if d.err != nil {
				return nil, fleet.Unreachable(text.Printable(fmt.Sprintf("port-forward to pod %s/%s: %v", p.Namespace, p.Name, d.err)))
			}
			return d.conn, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// dialer uses WebSockets or, with an API server or a proxy that cannot, SPDY.
func (c *Cluster) dialer(p corev1.Pod) (httpstream.Dialer, error) {
	url := c.client.Post().AbsPath("/api/v1/namespaces", p.Namespace, "pods", p.Name, "portforward").URL()
	first, err := portforward.NewSPDYOverWebsocketDialerForStreaming(url, c.options.Config)
	if err != nil {
		return nil, err
	}
	transport, upgrader, err := spdy.RoundTripperFor(c.options.Config)
	if err != nil {
		return nil, err
	}
	second := spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: transport}, http.MethodPost, url)
	return portforward.NewFallbackDialerForStreaming(first, second, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	}), nil
}

// open makes one connection to a port (client-go/tools/portforward, handleConnection).
func open(dialer httpstream.Dialer, port string) (net.Conn, error) {
	session, _, err := dialer.Dial(portforward.PortForwardProtocolV1Name)
	if err != nil {
		return nil, err
	}
	headers := http.Header{}
	headers.Set(corev1.StreamType, corev1.StreamTypeError)
	headers.Set(corev1.PortHeader, port)
	headers.Set(corev1.PortForwardRequestIDHeader, "0")
	failure, err := session.CreateStream(headers)
	if err != nil {
		return nil, errors.Join(err, session.Close())
	}
	_ = failure.Close() // only for writing
	headers.Set(corev1.StreamType, corev1.StreamTypeData)
	data, err := session.CreateStream(headers)
	if err != nil {
		return nil, errors.Join(err, session.Close())
	}
	return &connection{Stream: data, failure: failure, session: session}, nil
}

// connection is the data stream of a session, as a net.Conn without deadlines.
type connection struct {
	httpstream.Stream
	failure httpstream.Stream
	session httpstream.Connection
}

// Read turns the end of the stream into kubelet's error, if it sent one.
func (c *connection) Read(p []byte) (int, error) {
	n, err := c.Stream.Read(p)
	if n > 0 || !errors.Is(err, io.EOF) {
		return n, err
	}
	switch why, _ := io.ReadAll(io.LimitReader(c.failure, 4096)); {
	case strings.Contains(string(why), "connection refused"):
		return 0, fleet.Unreachable("connection refused on the pod's loopback address: check that trousseau runs there and that its --ops-addr is 127.0.0.1 or all addresses")
	case len(why) > 0:
		return 0, fleet.Unreachable(text.Printable(string(why)))
	}
	return 0, err
}

func (c *connection) Close() error { return c.session.Close() }

func (c *connection) LocalAddr() net.Addr              { return &net.UnixAddr{} }
func (c *connection) RemoteAddr() net.Addr             { return &net.UnixAddr{} }
func (c *connection) SetDeadline(time.Time) error      { return nil }
func (c *connection) SetReadDeadline(time.Time) error  { return nil }
func (c *connection) SetWriteDeadline(time.Time) error { return nil }
