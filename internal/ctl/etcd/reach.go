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

// reach connects to the endpoints, and returns the first error if all of them fail.
// gRPC would retry instead, and report only a timeout.
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

// knock connects. With TLS it also gets /version, which needs no authentication,
// because a missing client certificate shows only in the answer.
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

// isRefusal reports whether err is about the connection itself, so that gRPC would
// fail too. Other errors, such as an HTTP status, do not matter.
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

// inside returns the error without the method and URL of the request.
func inside(err error) error {
	var request *url.Error
	if errors.As(err, &request) {
		return request.Err
	}
	return err
}
