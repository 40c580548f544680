// SPDX-License-Identifier: Apache-2.0

package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// Options say how to reach etcd's servers.
type Options struct {
	// Endpoints are URLs such as https://10.0.0.1:2379; at least one.
	Endpoints []string
	// TLS is used with https; see [TLS].
	TLS *tls.Config
	// User and Password are needed if authentication is enabled; "" for none.
	User, Password string
	// Timeout is the time limit for each call; 0 means 30 seconds. The first call has
	// at most 10 seconds.
	Timeout time.Duration
	// PageSize is the number of objects per request; 0 means 500.
	PageSize int
	// PageBytes is the maximum size of an answer; 0 means 32 MiB. If a page is larger,
	// it is read in smaller pages.
	PageBytes int
	// Progress is called with the progress of the reading; may be nil.
	Progress Progress
}

// Live reads from etcd's servers. The caller must close it.
type Live struct {
	// Outside, if not nil, is called for each object under none of the prefixes. If
	// the user may not read them, [Reading.OutsideDenied] says so.
	Outside func(Object) error

	opts   Options
	client *clientv3.Client
}

// Dial connects to one of the endpoints, and authenticates if there is a password.
func Dial(ctx context.Context, opts Options) (*Live, error) {
	if opts.Timeout == 0 {
		opts.Timeout = 30 * time.Second
	}
	if opts.PageSize == 0 {
		opts.PageSize = 500
	}
	if opts.PageBytes == 0 {
		opts.PageBytes = 32 << 20
	}
	if err := reach(ctx, opts); err != nil {
		return nil, unreachable(opts.Endpoints, inside(err))
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints:          opts.Endpoints,
		TLS:                opts.TLS,
		Username:           opts.User,
		Password:           opts.Password,
		DialTimeout:        min(opts.Timeout, 10*time.Second),
		MaxCallRecvMsgSize: opts.PageBytes,
		Context:            ctx,
		Logger:             zap.NewNop(),
	})
	if err != nil {
		return nil, unreachable(opts.Endpoints, err)
	}
	return &Live{opts: opts, client: client}, nil
}

// Close ends the connection.
func (l *Live) Close() { _ = l.client.Close() }

// unreachable returns an error that says what to check.
func unreachable(endpoints []string, err error) error {
	advice := "check that etcd runs, and --endpoints"
	switch text := err.Error(); {
	case strings.Contains(text, "authentication failed"), strings.Contains(text, "user name"), strings.Contains(text, "permission denied"):
		advice = "check --user and --password-file, and that the user may read the whole prefix"
	case strings.Contains(text, "certificate"), strings.Contains(text, "tls:"), strings.Contains(text, "handshake"):
		advice = "check --cacert, --cert and --key; kube-apiserver's flags --etcd-cafile, --etcd-certfile and --etcd-keyfile name them"
	case errors.Is(err, context.DeadlineExceeded):
		advice = "check --endpoints, and --cacert, --cert and --key: an etcd that requires TLS does not answer without it"
	}
	return fmt.Errorf("reading etcd at %s: %w: %s", strings.Join(endpoints, ", "), err, advice)
}
