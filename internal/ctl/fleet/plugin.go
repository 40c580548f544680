// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	kmsapi "k8s.io/kms/apis/v2"

	"github.com/trousseau-io/trousseau/internal/ctl/text"
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

// Endpoint is a plugin's socket, as EncryptionConfiguration names it.
type Endpoint struct {
	text string
	path string // for net.Dial; one that begins with @ is abstract
}

// ParseEndpoint reads unix:///a/path, or unix:///@name for an abstract socket.
func ParseEndpoint(endpoint string) (Endpoint, error) {
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "unix" || u.Host != "" || len(u.Path) < 2 || u.Path[0] != '/' {
		return Endpoint{}, fmt.Errorf("%q: want unix:// and an absolute path, such as unix:///run/trousseau/kms.sock", endpoint)
	}
	if strings.HasPrefix(u.Path, "/@") {
		return Endpoint{endpoint, u.Path[1:]}, nil
	}
	return Endpoint{endpoint, u.Path}, nil
}

// Ask calls the plugin's Status, until ctx is done.
func (e Endpoint) Ask(ctx context.Context) Plugin {
	p := Plugin{Endpoint: e.text}
	// Of a connection that fails, gRPC reports only Unavailable.
	probe, err := e.dial(ctx, "")
	if err != nil {
		p.Error = unconnected(err)
		return p
	}
	_ = probe.Close()
	conn, err := grpc.NewClient("passthrough:///localhost", grpc.WithContextDialer(e.dial), grpc.WithTransportCredentials(insecure.NewCredentials()))
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

func (e Endpoint) dial(ctx context.Context, _ string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "unix", e.path)
}

func unconnected(err error) string {
	switch {
	case errors.Is(err, syscall.ENOENT):
		return "no such socket: start trousseau on this host, or give the endpoint that is in EncryptionConfiguration"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "no process listens on the socket: start trousseau again"
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return "permission denied: run this command as the user that kube-apiserver runs as"
	}
	return err.Error()
}
