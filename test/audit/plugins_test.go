// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	kmsapi "k8s.io/kms/apis/v2"

	"github.com/trousseau-io/trousseau/test/harness/otherplugin"
	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// listen serves a plugin and returns the path of its socket.
func listen(t *testing.T, register func(*grpc.Server)) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "kms") // the path of t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "kms.sock")
	p, err := otherplugin.Serve(socket, register)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	return socket
}

// idlePlugin is a healthy plugin of KMS v2 that is never asked to decrypt.
type idlePlugin struct {
	kmsapi.UnimplementedKeyManagementServiceServer
}

func (idlePlugin) Status(context.Context, *kmsapi.StatusRequest) (*kmsapi.StatusResponse, error) {
	return &kmsapi.StatusResponse{Version: "v2", Healthz: "ok", KeyId: "1"}, nil
}

// serveOldPlugin serves a plugin of KMS v1 with the key of a cluster's Vault, which need
// not be there yet.
func serveOldPlugin(t *testing.T, c *testbed.Cluster) (socket string) {
	t.Helper()
	address, root := "https://"+c.Vault.Addresses()[0], ""
	for _, variable := range c.Vault.AdminEnvironment(address) {
		if token, ok := strings.CutPrefix(variable, "VAULT_TOKEN="); ok {
			root = token
		}
	}
	key, err := otherplugin.NewKey(address, c.CAFile(), root, testbed.Key)
	if err != nil {
		t.Fatal(err)
	}
	return listen(t, key.KMSv1(false))
}
