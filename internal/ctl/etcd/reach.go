// SPDX-License-Identifier: Apache-2.0

package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// reach connects to the endpoints, and returns why that fails, where it does for
// all of them. gRPC tries again and again instead, and in the end says no more
// than that time is over.
func reach(ctx context.Context, opts Options) error {
	ctx, cancel := context.WithTimeout(ctx, min(opts.Timeout, 10*time.Second))
	defer cancel()
	transport := &http.Transport{TLSClientConfig: opts.TLS}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	var first error
	for _, endpoint := range opts.Endpoints {
		err := knock(ctx, client, endpoint)
		if !isRefusal(err) {
			return nil
		}
		if first == nil {
			first = err
		}
	}
	return first
}

// knock connects. With TLS it also asks for the version, as anybody may where etcd
// speaks HTTP at all: whether a certificate is missing shows only in the answer.
func knock(ctx context.Context, client *http.Client, endpoint string) error {
	if host, plain := strings.CutPrefix(endpoint, "http://"); plain {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", strings.TrimSuffix(host, "/"))
		if err != nil {
			return err
		}
		return conn.Close()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(endpoint, "/")+"/version", nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// isRefusal reports whether an error is about the connection: then gRPC fares no
// better. What is said over it does not matter.
func isRefusal(err error) bool {
	var (
		dial      *net.OpError
		alert     tls.AlertError
		verify    *tls.CertificateVerificationError
		authority x509.UnknownAuthorityError
		record    tls.RecordHeaderError
	)
	switch {
	case err == nil:
		return false
	case errors.As(err, &dial) && (dial.Op == "dial" || dial.Op == "remote error"):
		return true
	case errors.As(err, &alert), errors.As(err, &verify), errors.As(err, &authority), errors.As(err, &record):
		return true
	}
	return strings.Contains(err.Error(), "server gave HTTP response to HTTPS client")
}

// inside is what is wrong, without which request it was found with.
func inside(err error) error {
	var request *url.Error
	if errors.As(err, &request) {
		return request.Err
	}
	return err
}
