// SPDX-License-Identifier: Apache-2.0

package drill

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"strconv"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	kmsapi "k8s.io/kms/apis/v2"

	"github.com/trousseau-io/trousseau/internal/endpoint"
	"github.com/trousseau-io/trousseau/internal/seed"
)

// Plugin unwraps seeds through any KMS v2 plugin, as kube-apiserver does. The
// caller must Close it.
type Plugin struct {
	conn *grpc.ClientConn
	kms  kmsapi.KeyManagementServiceClient
}

// DialPlugin connects to a plugin and calls Status.
func DialPlugin(ctx context.Context, e endpoint.Endpoint) (*Plugin, error) {
	// kube-apiserver names no path as the authority either: some servers refuse it.
	conn, err := grpc.NewClient("passthrough:///localhost", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return e.Dial(ctx) }))
	if err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", e, err)
	}
	p := &Plugin{conn, kmsapi.NewKeyManagementServiceClient(conn)}
	if _, err := p.kms.Status(ctx, &kmsapi.StatusRequest{}); err != nil {
		p.Close()
		return nil, fmt.Errorf("calling Status of the plugin at %s: %s; check that it runs and that this user may connect to the socket", e, said(err))
	}
	return p, nil
}

// Close closes the connection.
func (p *Plugin) Close() { _ = p.conn.Close() }

// Unwrap asks the plugin to decrypt a seed. Its errors are [*Failure]s.
//
// Plugins refuse data of another plugin or key as they refuse damaged data, with
// InvalidArgument: this does not prove a loss.
func (p *Plugin) Unwrap(ctx context.Context, w seed.Wrapped) ([]byte, error) {
	if w.KeyID == "" {
		return nil, &Failure{Verdict: Unknown, Reason: "a plugin of KMS v2 unwraps no DEK of KMS v1; use --vault-config"}
	}
	answer, err := p.kms.Decrypt(ctx, &kmsapi.DecryptRequest{
		Uid:         rand.Text(),
		Ciphertext:  w.Ciphertext,
		KeyId:       w.KeyID,
		Annotations: w.Annotations,
	})
	if err == nil {
		return answer.GetPlaintext(), nil
	}
	failure := &Failure{Verdict: Lost, Reason: "the plugin refused: " + said(err)}
	switch status.Code(err) {
	case codes.Unavailable, codes.ResourceExhausted, codes.DeadlineExceeded, codes.Aborted, codes.Canceled:
		failure.Verdict, failure.Passing = Unknown, true
	case codes.PermissionDenied, codes.Unauthenticated, codes.Unimplemented, codes.Unknown, codes.Internal, codes.InvalidArgument:
		failure.Verdict = Unknown
	}
	return nil, failure
}

// said is a plugin's error, shortened and safe to print.
func said(err error) string {
	s := status.Convert(err)
	text := s.Message()
	if len(text) > 200 {
		text = strings.ToValidUTF8(text[:200], "") + "..."
	}
	if quoted := strconv.Quote(text); quoted != `"`+text+`"` {
		text = quoted
	}
	return s.Code().String() + ": " + text
}
