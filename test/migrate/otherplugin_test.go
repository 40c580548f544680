// SPDX-License-Identifier: Apache-2.0

package migrate

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trousseau-io/trousseau/test/harness/otherplugin"
	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// otherKey is the key of the plugins that users come from.
const otherKey = "kms"

// other is the plugin that users come from, on one node.
type other interface {
	start()
	stop()
}

// standIn is one that runs in this process.
type standIn struct {
	t        *testing.T
	socket   string
	register func(*grpc.Server)
	plugin   *otherplugin.Plugin
}

func (o *standIn) start() {
	o.t.Helper()
	var err error
	if o.plugin, err = otherplugin.Serve(o.socket, o.register); err != nil {
		o.t.Fatal(err)
	}
	o.t.Cleanup(o.plugin.Stop)
}

func (o *standIn) stop() { o.plugin.Stop() }

// realOne is the plugin itself.
type realOne struct {
	s      *site
	server *testbed.Server
	socket string
}

func (o realOne) start() {
	o.server.Start()
	o.s.Await(time.Minute, o.server.Name+"'s socket", func(context.Context) error {
		conn, err := net.Dial("unix", o.socket)
		if err == nil {
			conn.Close()
		}
		return err
	})
}

func (o realOne) stop() { o.server.Stop() }

// comeFrom starts a cluster that has been under another plugin all the time, with the
// transit keys and an EncryptionConfiguration. oldSocket is the directory of that plugin's
// socket on the page. config.yaml of Trousseau, which is not started, has a token for the
// first of the keys, and the further lines.
func (s *site) comeFrom(oldSocket, encryptionConfiguration string, newOther func(n *testbed.Node, socket string) other, keys ...string) (others []other) {
	s.t.Helper()
	s.here = append(s.here, oldSocket, s.here[slices.Index(s.here, "/run/trousseau")+1])
	s.encrypt(encryptionConfiguration)
	s.Vault.CLI("secrets", "enable", "transit")
	for _, key := range keys {
		s.Vault.CLI("write", "-f", "transit/keys/"+key)
	}
	for _, n := range s.Nodes {
		o := newOther(n, filepath.Join(n.Dir, "run", "vaultkms.socket"))
		o.start()
		n.APIServer.Start()
		others = append(others, o)
	}
	for _, n := range s.Nodes {
		n.APIServer.AwaitReady()
	}
	return others
}

// tokenFor returns a token that may use a transit key.
func (s *site) tokenFor(key string) string {
	s.t.Helper()
	policy := fmt.Sprintf(`path "transit/encrypt/%[1]s" { capabilities = ["update"] }
path "transit/decrypt/%[1]s" { capabilities = ["update"] }
path "transit/keys/%[1]s" { capabilities = ["read"] }
`, key)
	s.Vault.CLIWithInput(policy, "policy", "write", key, "-")
	token := strings.TrimSpace(s.Vault.CLI("token", "create", "-orphan", "-policy="+key, "-period=768h", "-field=token"))
	s.KeepSecret(token)
	return token
}

// key returns a transit key for a stand-in.
func (s *site) key(name string) otherplugin.Key {
	s.t.Helper()
	key, err := otherplugin.NewKey("https://"+s.Vault.Addresses()[0], s.CAFile(), s.tokenFor(name), name)
	if err != nil {
		s.t.Fatal(err)
	}
	return key
}

// configure writes config.yaml on every node, and starts Trousseau.
func (s *site) configure(key string) {
	s.t.Helper()
	token := s.tokenFor(key)
	for _, n := range s.Nodes {
		s.Replace(n.ConfigFile, fmt.Sprintf("provider: vault\nvault:\n  keynames: [%s]\n  address: https://%s\n  token: %s\n  vaultCACert: %s\n",
			key, s.Vault.Addresses()[0], token, s.CAFile()))
		n.Trousseau.Start()
	}
	for _, n := range s.Nodes {
		n.Trousseau.AwaitReady()
	}
}

// cold restarts every API server, so that it must decrypt everything again.
func (s *site) cold() {
	s.t.Helper()
	for _, n := range s.Nodes {
		s.users.restart(n.APIServer)
	}
}

// mustKeepVersions checks that no version of a key has been forbidden.
func (s *site) mustKeepVersions(key string) {
	s.t.Helper()
	if got := strings.TrimSpace(s.Vault.CLI("read", "-field=min_decryption_version", "transit/keys/"+key)); got != "1" {
		s.t.Errorf("min_decryption_version of %s is %s, want 1", key, got)
	}
}

// bareFirst is what vault-kubernetes-kms documents.
const bareFirst = `kind: EncryptionConfiguration
apiVersion: apiserver.config.k8s.io/v1
resources:
- resources:
    - secrets
  providers:
  - kms:
      apiVersion: v2
      name: vault-kubernetes-kms
      endpoint: unix:///opt/kms/vaultkms.socket
  - identity: {}
`

// bare returns the plugin with bare key_ids: a stand-in, or vault-kubernetes-kms if
// TROUSSEAU_OTHER_PLUGIN is its path.
func (s *site) bare() func(*testbed.Node, string) other {
	s.t.Helper()
	path := os.Getenv("TROUSSEAU_OTHER_PLUGIN")
	var key *otherplugin.Key
	return func(n *testbed.Node, socket string) other {
		if path == "" {
			if key == nil {
				k := s.key(otherKey)
				key = &k
			}
			return &standIn{t: s.t, socket: socket, register: key.KMSv2}
		}
		return realOne{s: s, socket: socket, server: s.NewServer("other-"+n.Trousseau.Name, path,
			"-socket=unix://"+socket, "-force-socket-overwrite", "-vault-address=https://"+s.Vault.Addresses()[0], "-vault-ca-cert="+s.CAFile(),
			"-auth-method=token", "-token="+s.tokenFor(otherKey), "-transit-key="+otherKey, "-health-port="+fmt.Sprint(s.FreePort()))}
	}
}

// comeFromBare is comeFrom for the plugin with bare key_ids. Some Secrets are under an
// older version of its key.
func (s *site) comeFromBare(keys ...string) []other {
	s.t.Helper()
	others := s.comeFrom("/opt/kms", bareFirst, s.bare(), append(keys, otherKey)...)
	for i := range 10 {
		if _, err := secretsOf(s.Nodes[0].APIServer).Create(s.t.Context(), secret(fmt.Sprint("older-", i)), metav1.CreateOptions{}); err != nil {
			s.t.Fatal(err)
		}
	}
	s.Vault.CLI("write", "-f", "transit/keys/"+otherKey+"/rotate")
	for _, n := range s.Nodes {
		n.APIServer.Restart()
	}
	s.use()
	if stored := s.stored(); stored[bareOf(1)] == 0 || stored[bareOf(2)] == 0 {
		s.t.Fatalf("stored as %v, want some under key_id 1, and some under 2", stored)
	}
	return others
}

// bareOf is how the Secrets of a version are counted.
func bareOf(version int) string { return fmt.Sprint("kms v2 vault-kubernetes-kms ", version) }

// Trousseau takes the place of a plugin with bare key_ids: the socket, the key, and the
// provider's name. One API server after the other changes, while both are used; and back.
func TestInPlace(t *testing.T) {
	s := newSite(t, "6 vault-kubernetes-kms, in place", "vault-kubernetes-kms.md#swap-", testbed.Options{})
	for _, n := range s.Nodes {
		listen := slices.Index(n.Trousseau.Args, "--listen-addr=unix://"+n.Trousseau.Socket)
		n.Trousseau.Socket = filepath.Join(n.Dir, "run", "vaultkms.socket")
		n.Trousseau.Args[listen] = "--listen-addr=unix://" + n.Trousseau.Socket
	}
	others := s.comeFromBare()
	s.variables["TOKEN"] = filepath.Join(s.Dir, "new-token")
	s.run("swap-token", nil)
	for _, n := range s.Nodes {
		s.run("swap-config", n)
	}
	swap := func(i int) {
		t.Helper()
		n := s.Nodes[i]
		s.step(fmt.Sprint("Trousseau on node ", i+1), func() {
			others[i].stop()
			n.Trousseau.Start()
			n.Trousseau.AwaitReady()
			id := "kms v2 vault-kubernetes-kms " + n.Trousseau.KeyID()
			before := s.stored()[id]
			s.Await(2*time.Minute, "writes under Trousseau's key_id", func(ctx context.Context) error {
				_, err := n.APIServer.Page(ctx, "/readyz")
				if err == nil && s.stored()[id] <= before {
					err = fmt.Errorf("none yet: %v", s.stored())
				}
				return err
			})
			s.cold()
		})
	}
	back := func(i int) {
		t.Helper()
		s.step(fmt.Sprint("back to the old plugin on node ", i+1), func() {
			s.Nodes[i].Trousseau.Stop()
			others[i].start()
			s.cold()
		})
	}
	swap(0)
	back(0)
	swap(0)
	swap(1)
	back(1) // the last one
	swap(1)

	id := s.Nodes[0].Trousseau.KeyID()
	s.step("re-encrypted", func() { s.run("swap-reencrypt", nil) })
	s.run("swap-left", nil)
	s.mustBeStored("kms v2 vault-kubernetes-kms " + id)
	back(0) // all of it is Trousseau's
	swap(0)
	s.step("re-encrypted again", func() { s.run("swap-reencrypt", nil) })
	s.reload("swap-strict")
	s.step("cold caches", s.cold)
	s.mustBeStored("kms v2 vault-kubernetes-kms " + id)
	s.mustKeepVersions(otherKey)
}

// Trousseau runs beside a plugin with bare key_ids, with a key of its own, until nothing of
// that plugin is left.
func TestSideBySide(t *testing.T) {
	s := newSite(t, "7 vault-kubernetes-kms, side by side", "vault-kubernetes-kms.md#beside-", testbed.Options{})
	others := s.comeFromBare(testbed.Key)
	s.configure(testbed.Key)
	s.onEach("beside-read")
	s.onEach("beside-write")
	s.onEach("beside-back")
	s.mustHaveBothWays("kms v2 trousseau ")
	s.onEach("beside-write")
	s.step("re-encrypted", func() { s.run("beside-reencrypt", s.Nodes[0]) })
	s.mustBeStored("kms v2 trousseau " + s.Nodes[0].Trousseau.KeyID())
	s.onEach("beside-only")
	s.step("the old plugin is gone", func() {
		for _, o := range others {
			o.stop()
		}
		s.cold()
	})
	s.mustKeepVersions(otherKey)
}

// v1First is what the original Trousseau documents.
const v1First = `kind: EncryptionConfiguration
apiVersion: apiserver.config.k8s.io/v1
resources:
  - resources:
      - secrets
    providers:
      - kms:
          name: vaultprovider
          endpoint: unix:///opt/vault-kms/vaultkms.socket
          cachesize: 1000
      - identity: {}
`

// A cluster moves from the original Trousseau, a plugin of KMS v1, which runs beside
// Trousseau and then does not.
func TestKMSv1(t *testing.T) {
	const gate = "--feature-gates=KMSv1=true"
	s := newSite(t, "8 KMS v1", "kms-v1.md", testbed.Options{APIServerFlags: []string{gate}})
	var key *otherplugin.Key
	others := s.comeFrom("/opt/vault-kms", v1First, func(n *testbed.Node, socket string) other {
		if key == nil {
			k := s.key(testbed.Key)
			key = &k
		}
		return &standIn{t: t, socket: socket, register: key.KMSv1(false)}
	}, testbed.Key)
	s.configure(testbed.Key)
	s.use()
	s.onEach("read")
	s.onEach("write")
	s.onEach("back")
	s.mustHaveBothWays("kms v2 trousseau ")
	s.onEach("write")

	s.step("Trousseau decrypts for KMS v1", func() {
		for _, n := range s.Nodes {
			n.Trousseau.Stop()
			n.Trousseau.Args = append(n.Trousseau.Args, "--serve-v1-decrypt")
			n.Trousseau.Start()
			n.Trousseau.AwaitReady()
		}
	})
	without := func() {
		t.Helper()
		s.onEach("without")
		s.step("the old plugin is gone", func() {
			for _, o := range others {
				o.stop()
			}
			s.cold() // and ready
		})
	}
	without()
	s.mustHaveBothWays("kms v1 vaultprovider")
	for _, o := range others {
		o.start()
	}
	s.onEach("with")
	without()

	s.step("re-encrypted", func() { s.run("reencrypt", s.Nodes[0]) })
	s.run("left", nil)
	s.mustBeStored("kms v2 trousseau " + s.Nodes[0].Trousseau.KeyID())
	s.onEach("only-trousseau")
	s.step("without the feature gate", func() {
		for _, n := range s.Nodes {
			n.APIServer.Args = slices.DeleteFunc(n.APIServer.Args, func(a string) bool { return a == gate })
		}
		s.cold()
	})
	s.mustKeepVersions(testbed.Key)
}
