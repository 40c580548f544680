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

// Options are how to reach etcd's servers.
type Options struct {
	// Endpoints are URLs such as https://10.0.0.1:2379; at least one.
	Endpoints []string
	// TLS is used with https; see [TLS].
	TLS *tls.Config
	// User and Password are for an etcd that wants them; empty for none.
	User, Password string
	// Timeout bounds each call, the first to ten seconds; 0 means 30 seconds.
	Timeout time.Duration
	// PageSize is how many objects are asked for at once; 0 means 500.
	PageSize int
	// PageBytes is how large an answer may be; 0 means 32 MiB. One that would be
	// larger is asked for in smaller pages.
	PageBytes int
	// Progress is told how far the reading is; nil tells nobody.
	Progress Progress
}

// Live reads from etcd's servers. It must be closed.
type Live struct {
	opts   Options
	client *clientv3.Client
}

// Dial sees that one of the endpoints can be connected to, and sends it the
// password, if there is one.
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

// unreachable says why etcd could not be asked, and what to look at.
func unreachable(endpoints []string, err error) error {
	advice := "check that it runs and --endpoints"
	switch text := err.Error(); {
	case strings.Contains(text, "authentication failed"), strings.Contains(text, "user name"), strings.Contains(text, "permission denied"):
		advice = "check --user and --password-file, and that the user may read the whole prefix"
	case strings.Contains(text, "certificate"), strings.Contains(text, "tls:"), strings.Contains(text, "handshake"):
		advice = "check --cacert, --cert and --key; kube-apiserver's flags --etcd-cafile, --etcd-certfile and --etcd-keyfile name them"
	case errors.Is(err, context.DeadlineExceeded):
		advice = "check --endpoints, and --cacert, --cert and --key: an etcd that wants TLS does not answer without"
	}
	return fmt.Errorf("asking etcd at %s: %w: %s", strings.Join(endpoints, ", "), err, advice)
}
