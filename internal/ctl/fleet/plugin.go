// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"fmt"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	kmsapi "k8s.io/kms/apis/v2"

	"github.com/trousseau-io/trousseau/internal/ctl/text"
	"github.com/trousseau-io/trousseau/internal/endpoint"
	"github.com/trousseau-io/trousseau/internal/keyid"
)

// Plugin is a KMS v2 plugin as kube-apiserver sees it: what it answers to
// Status on its socket.
type Plugin struct {
	Endpoint string `json:"endpoint"`
	// Healthz is ok if the plugin is healthy.
	Healthz string `json:"healthz,omitempty"`
	KeyID   string `json:"keyID,omitempty"`
	// Hash is the hash of KeyID.
	Hash string `json:"keyIDHash,omitempty"`
	// Error is the plugin's error, or why there was no answer.
	Error string `json:"error,omitempty"`
}

// AskPlugin calls the Status of the plugin at e, until ctx is done.
func AskPlugin(ctx context.Context, e endpoint.Endpoint) Plugin {
	p := Plugin{Endpoint: e.String()}
	// Of a connection that fails, gRPC reports only Unavailable.
	probe, err := e.Dial(ctx)
	if err != nil {
		p.Error = err.Error()
		return p
	}
	_ = probe.Close()
	conn, err := grpc.NewClient("passthrough:///localhost", grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return e.Dial(ctx) }), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		p.Error = err.Error()
		return p
	}
	defer conn.Close()
	resp, err := kmsapi.NewKeyManagementServiceClient(conn).Status(ctx, &kmsapi.StatusRequest{})
	if err != nil {
		p.Error = text.Printable(fmt.Sprintf("%s: %s", status.Code(err), status.Convert(err).Message()))
		return p
	}
	p.Healthz, p.KeyID, p.Hash = text.Printable(resp.GetHealthz()), text.Printable(resp.GetKeyId()), keyid.Hash(resp.GetKeyId())
	return p
}
