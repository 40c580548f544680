// SPDX-License-Identifier: Apache-2.0

package monitoring

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	kmsapi "k8s.io/kms/apis/v2"

	"github.com/trousseau-io/trousseau/internal/vault/vaulttest"
	"github.com/trousseau-io/trousseau/test/apiserver/plugin"
)

const keyName = "trousseau-kms-vault"

// expose runs the daemon through all that its metrics tell of, and returns the
// page that it then shows: a login, a renewal, the token revoked for another one
// that expires; Status, Encrypt and Decrypt, and a Decrypt that fails; at last a
// configuration that it does not take.
func expose(t *testing.T) page {
	t.Helper()
	d := start(t)
	vault := vaulttest.Start(t)
	vault.CreateKey(keyName)

	approle := vault.EnableAppRole("", "approle")
	role := approle.SetRole("trousseau", vaulttest.AppRoleOptions{Token: vaulttest.TokenOptions{
		// Renewed when a third of it is left.
		TTL: 3 * time.Second, Rules: vaulttest.TransitPolicy("transit", keyName),
	}})
	secret := approle.NewSecretID("trousseau", vaulttest.SecretIDOptions{})
	d.configure(vault, fmt.Sprintf("  roleID: %s\n  secretID: %s\n", role, secret))
	d.await(`trousseau_vault_requests_total{code="ok",operation="renew_self"} `)
	d.configure(vault, fmt.Sprintf("  token: %s\n", vault.KMSToken(keyName)))
	d.await(`trousseau_config_reloads_total{result="adopted"} 2`)
	d.await(`trousseau_vault_requests_total{code="ok",operation="revoke_self"} `)

	call(t, d.process.Socket())
	d.render("vault: [\n")
	d.await(`trousseau_config_last_reload_error_info{class="config"} 1`)
	return parsePage(t, d.metrics())
}

// daemon is a running trousseau.
type daemon struct {
	t       *testing.T
	process *plugin.Process
	pages   string // URL
}

func start(t *testing.T) daemon {
	t.Helper()
	binary := fromEnv(t, "TROUSSEAU_BINARY")
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := free.Addr().String()
	free.Close()
	// Stop ends it: the end of the test would be a second signal.
	p, err := plugin.Start(context.WithoutCancel(t.Context()), plugin.Options{
		Binary: binary, Dir: t.TempDir(),
		Args: []string{"--ops-addr=" + addr, "--probe-interval=500ms", "--request-timeout=1s"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	})
	return daemon{t, p, "http://" + addr}
}

// configure points it to a Vault, with a credential in lines of config.yaml.
func (d daemon) configure(vault *vaulttest.Server, credential string) {
	d.t.Helper()
	d.render(fmt.Sprintf("provider: vault\nvault:\n  keynames: [%s]\n  address: %s\n%s", keyName, vault.URL(), credential))
}

func (d daemon) render(text string) {
	d.t.Helper()
	if err := plugin.Render(d.process.ConfigFile(), text); err != nil {
		d.t.Fatal(err)
	}
}

// await waits until a line of /metrics begins like this.
func (d daemon) await(begin string) {
	d.t.Helper()
	err := plugin.Await(d.t.Context(), 20*time.Second, begin, func(context.Context) (bool, error) {
		return strings.Contains("\n"+d.metrics(), "\n"+begin), nil
	})
	if err != nil {
		log, _ := d.process.Log()
		d.t.Fatalf("%v; trousseau's log:\n%s", err, log)
	}
}

func (d daemon) metrics() string {
	d.t.Helper()
	resp, err := http.Get(d.pages + "/metrics")
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		d.t.Fatalf("/metrics: got %s, %v", resp.Status, err)
	}
	return string(text)
}

// call makes each request of kube-apiserver's, and one that fails.
func call(t *testing.T, socket string) {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := kmsapi.NewKeyManagementServiceClient(conn)
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
		t.Fatal("what no key has encrypted was decrypted")
	}
}
