// SPDX-License-Identifier: Apache-2.0

package monitoring

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	kmsapi "k8s.io/kms/apis/v2"

	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
	"github.com/trousseau-io/trousseau/test/harness/agent"
	"github.com/trousseau-io/trousseau/test/harness/plugin"
)

const keyName = "trousseau-kms-vault"

// expose makes the daemon do everything that its metrics report, and returns its
// /metrics: a login, a renewal, a revocation, an expiring token; Status, Encrypt,
// Decrypt and a failing Decrypt; retries; and a refused configuration.
func expose(t *testing.T) (text string) {
	t.Helper()
	d := start(t)
	vault := vaulttest.Start(t)
	vault.CreateKey(keyName)

	approle := vault.EnableAppRole("", "approle")
	role := approle.SetRole("trousseau", vaulttest.TokenOptions{
		// Renewed when a third of its lifetime is left.
		TTL: 3 * time.Second, Rules: vaulttest.TransitPolicy("transit", keyName),
	})
	secret := approle.NewSecretID("trousseau")
	d.configure(vault, fmt.Sprintf("  roleID: %s\n  secretID: %s\n", role, secret))
	d.await(`trousseau_vault_requests_total{code="ok",operation="renew_self"} `)
	d.configure(vault, fmt.Sprintf("  token: %s\n", vault.KMSToken(keyName)))
	d.await(`trousseau_config_reloads_total{result="adopted"} 2`)
	d.await(`trousseau_vault_requests_total{code="ok",operation="revoke_self"} `)

	client := dial(t, d.process.Socket())
	call(t, client)
	mend := vault.Inject(vaulttest.Fault{Status: 500})
	if _, err := client.Encrypt(t.Context(), &kmsapi.EncryptRequest{Uid: "3", Plaintext: make([]byte, 32)}); err == nil {
		t.Fatal("encrypting without Vault succeeded")
	}
	mend()
	d.await("trousseau_degraded 0")
	d.render("vault: [\n")
	d.await(`trousseau_config_last_reload_error_info{class="config"} 1`)
	text, err := d.process.Metrics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// daemon is a running trousseau.
type daemon struct {
	t       *testing.T
	process *plugin.Process
}

func start(t *testing.T) daemon {
	t.Helper()
	binary := fromEnv(t, "TROUSSEAU_BINARY")
	// Stop it here: the end of the test would send a second signal.
	p, err := plugin.Start(context.WithoutCancel(t.Context()), plugin.Options{
		Binary: binary, Dir: t.TempDir(),
		Args: []string{"--probe-interval=500ms", "--request-timeout=1s"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	})
	return daemon{t, p}
}

// configure writes a configuration with a Vault and the lines of a credential.
func (d daemon) configure(vault *vaulttest.Server, credential string) {
	d.t.Helper()
	d.render(fmt.Sprintf("provider: vault\nvault:\n  keynames: [%s]\n  address: %s\n%s", keyName, vault.URL(), credential))
}

func (d daemon) render(text string) {
	d.t.Helper()
	if err := agent.Render(d.process.ConfigFile(), text); err != nil {
		d.t.Fatal(err)
	}
}

// await waits until a line of /metrics has this prefix.
func (d daemon) await(begin string) {
	d.t.Helper()
	err := plugin.Await(d.t.Context(), 20*time.Second, begin, func(ctx context.Context) (bool, error) {
		text, _ := d.process.Metrics(ctx) // /metrics is available after the socket
		return strings.Contains("\n"+text, "\n"+begin), nil
	})
	if err != nil {
		log, _ := d.process.Log()
		d.t.Fatalf("%v; trousseau's log:\n%s", err, log)
	}
}

// dial returns a client of the daemon.
func dial(t *testing.T, socket string) kmsapi.KeyManagementServiceClient {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return kmsapi.NewKeyManagementServiceClient(conn)
}

// call sends each of kube-apiserver's requests, and one that fails.
func call(t *testing.T, client kmsapi.KeyManagementServiceClient) {
	t.Helper()
	status, err := client.Status(t.Context(), &kmsapi.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	wrapped, err := client.Encrypt(t.Context(), &kmsapi.EncryptRequest{Uid: "1", Plaintext: make([]byte, 32)})
	if err != nil {
		t.Fatal(err)
	}
	request := &kmsapi.DecryptRequest{Uid: "2", KeyId: status.GetKeyId(), Ciphertext: wrapped.GetCiphertext()}
	if _, err := client.Decrypt(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	request.Ciphertext = []byte("vault:v1:" + base64.StdEncoding.EncodeToString(make([]byte, 60)))
	if _, err := client.Decrypt(t.Context(), request); err == nil {
		t.Fatal("decrypting an invalid ciphertext succeeded")
	}
}
