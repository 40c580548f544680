// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// Addresses and directories of a site.
var (
	siteAddrs = []string{"10.0.0.1", "10.0.0.2", "10.0.0.3"}
	siteDirs  = []string{"/etc/kubernetes", "/etc/trousseau", "/run/trousseau"}
)

// site is a cluster with the addresses and files used in trousseauctl's examples.
// Two of its nodes have an API server; the third runs only trousseau.
type site struct {
	*testbed.Cluster
	t     *testing.T
	admin administrator
	// dir is the working directory of commands.
	dir       string
	trousseau []*testbed.Trousseau
	secrets   int
}

// newSite needs namespaces with siteAddrs and siteDirs. This process runs on the
// first node.
func newSite(t *testing.T, bed *testbed.Bed) *site {
	t.Helper()
	c := testbed.NewCluster(bed, testbed.Options{
		Hosts:          siteAddrs[:2],
		Etcd:           bed.StartSecureEtcd("127.0.0.1:2379", "10.0.0.1:2379"),
		TrousseauFlags: []string{"--probe-interval=1s"},
		// The Service kubernetes has both addresses, but not the nodes' addresses.
		APIServerFlags: []string{"--endpoint-reconciler-type=lease", "--service-cluster-ip-range=10.96.0.0/16"},
	})
	s := &site{
		Cluster: c, t: t, dir: filepath.Join(bed.Dir, "work"), secrets: 100,
		admin: administrator{t, c.Vault.AdminEnvironment("https://" + c.Proxy.Addr)},
	}
	first, second := c.Nodes[0], c.Nodes[1]
	s.bind(first.Dir, "/etc/trousseau")
	s.bind(filepath.Join(first.Dir, "run"), "/run/trousseau")
	first.APIServer.Args = append(first.APIServer.Args, "--encryption-provider-config="+
		bed.Write("/etc/kubernetes/encryption/encryption-config.yaml", bed.Documented("encryption-config.yaml")))
	second.Encrypt()
	for i, n := range c.Nodes {
		// An API server's identity is derived from the hostname at its start.
		if err := unix.Sethostname(fmt.Appendf(nil, "node%d", i+1)); err != nil {
			t.Fatal(err)
		}
		n.Trousseau.Start()
		n.APIServer.Start()
		n.APIServer.AwaitLive()
	}
	c.SetUpVault()
	for _, n := range c.Nodes {
		n.SetUpAgent()
		n.Agent.Start()
	}
	s.trousseau = []*testbed.Trousseau{first.Trousseau, second.Trousseau, s.third(second.ConfigFile)}
	for _, p := range s.trousseau {
		p.AwaitReady()
	}
	for i, n := range c.Nodes {
		n.APIServer.AwaitReady()
		join(t, first.APIServer, fmt.Sprintf("node%d", i+1), siteAddrs[i], siteAddrs[i], n.Trousseau.Args)
		createSecrets(t, n.APIServer, fmt.Sprintf("of-%d-", i), s.secrets/len(c.Nodes))
	}
	// reencrypt leaves migrations to it. Other controllers would evict the pods of nodes without a kubelet.
	s.NewControllerManager("--controllers=garbage-collector-controller,storage-version-migrator-controller").Start()
	s.forward("127.0.0.1:8095", "10.0.0.1:8095")
	s.layOut()
	c.Etcd.Save(s.path("backup.db"))
	return s
}

func (s *site) bind(source, target string) {
	s.t.Helper()
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		s.t.Fatalf("mounting %s at %s: %v", source, target, err)
	}
}

// third is the trousseau of a node whose agent renders the same configuration.
func (s *site) third(config string) *testbed.Trousseau {
	s.t.Helper()
	const ops = "10.0.0.3:8095"
	socket := filepath.Join(s.Dir, "kms.sock")
	server := s.NewServer("trousseau-node3", s.Binary,
		"--config-file-path="+config, "--listen-addr=unix://"+socket, "--ops-addr="+ops, "--probe-interval=1s")
	server.Start()
	return s.Attach(server, socket, ops)
}

// forward makes the ops endpoints of this node also available on the loopback
// address: on a separate node, trousseau would listen on all addresses.
func (s *site) forward(from, to string) {
	s.t.Helper()
	l, err := net.Listen("tcp", from)
	if err != nil {
		s.t.Fatal(err)
	}
	server := &http.Server{Handler: httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: to})}
	go func() { _ = server.Serve(l) }()
	s.t.Cleanup(func() { _ = server.Close() })
}

// existing is an EncryptionConfiguration from before Trousseau.
const existing = `apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets]
  providers:
  - aescbc:
      keys:
      - name: key1
        secret: bm90IGEgc2VjcmV0LCBidXQgMzIgYnl0ZXMgbG9uZyE=
  - identity: {}
`

// inventory lists the site, once by its API and once by its addresses.
const inventory = `apiVersion: trousseau.io/v1
kind: Inventory
clusters:
- name: prod-eu-1
  kubeconfig: admin.conf
- name: prod-eu-2
  ops: [10.0.0.1, 10.0.0.2, 10.0.0.3]
`

// staticPod is a manifest for kubelet's directory.
const staticPod = `apiVersion: v1
kind: Pod
metadata:
  name: trousseau
  namespace: kube-system
spec:
  containers:
  - name: trousseau
    image: registry.example/trousseau:v1
`

// files are the files in the examples; relative paths are in the working directory.
func (s *site) files() map[string]string {
	s.t.Helper()
	ca, cert, key := s.read(s.CAFile()), s.read(s.Etcd.CertFile), s.read(s.Etcd.KeyFile)
	kubeconfig := s.read(s.Nodes[0].APIServer.Kubeconfig())
	return map[string]string{
		"/etc/kubernetes/admin.conf":                    kubeconfig,
		"/etc/kubernetes/pki/ca.crt":                    ca,
		"/etc/kubernetes/pki/etcd/ca.crt":               ca,
		"/etc/kubernetes/pki/apiserver-etcd-client.crt": cert,
		"/etc/kubernetes/pki/apiserver-etcd-client.key": key,

		"admin.conf":             kubeconfig,
		"ca.crt":                 ca,
		"client.crt":             cert,
		"client.key":             key,
		"clusters.yaml":          inventory,
		"config.yaml":            s.read("/etc/trousseau/config.yaml"),
		"encryption-config.yaml": existing,
		"nodes.txt":              strings.Join(siteAddrs, ":8095\n") + ":8095\n",
		"trousseau.yaml":         staticPod,
	}
}

// layOut restores the initial files before a command.
func (s *site) layOut() {
	s.t.Helper()
	for name, text := range s.files() {
		s.Write(s.path(name), text)
	}
}

// path returns a file's path; relative names are in the working directory.
func (s *site) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(s.dir, name)
}

func (s *site) read(name string) string {
	s.t.Helper()
	text, err := os.ReadFile(s.path(name))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

// forgetAgents deletes the role that agents log in with. One example would reassign
// that role to Trousseau, which is refused.
func (s *site) forgetAgents() {
	s.t.Helper()
	s.Vault.CLI("delete", "auth/kubernetes/role/trousseau")
}

// rotate adds a version to the key; nothing is stored under it yet.
func (s *site) rotate() {
	s.t.Helper()
	before := s.trousseau[0].KeyID()
	s.Vault.CLI("write", "-f", "transit/keys/"+testbed.Key+"/rotate")
	s.Await(30*time.Second, "every trousseau to have the new version", func(ctx context.Context) error {
		for _, p := range s.trousseau {
			status, err := p.KMS.Status(ctx)
			if err != nil {
				return err
			}
			if status.KeyID == before {
				return fmt.Errorf("%s still has %s", p.Name, before)
			}
		}
		return nil
	})
	s.mustBeUnder(before)
}

// awaitAPIServers waits until the API servers use the new key_id too; they check
// once a minute. reencrypt does that before it rewrites a resource without objects.
func (s *site) awaitAPIServers() {
	s.t.Helper()
	s.admin.trousseauctl(0, "reencrypt", "--kubeconfig", "/etc/kubernetes/admin.conf", "--resources=limitranges", "--via=walk", "--wait=2m")
}

// mustBeRewritten checks that everything is stored under the newest key_id.
func (s *site) mustBeRewritten() {
	s.t.Helper()
	newest := s.trousseau[0].KeyID()
	s.mustBeUnder(newest)
	stdout, _ := s.admin.trousseauctl(0, "audit", "-o=json", "--endpoints=https://10.0.0.1:2379",
		"--cacert="+s.CAFile(), "--cert="+s.Etcd.CertFile, "--key="+s.Etcd.KeyFile, "--resource=secrets")
	var document struct {
		Report struct {
			Objects int
			KeyIDs  []struct {
				KeyID   string
				Objects int
			}
		}
	}
	decode(s.t, stdout, &document)
	found := document.Report
	if found.Objects != s.secrets || len(found.KeyIDs) != 1 || found.KeyIDs[0].KeyID != newest {
		s.t.Errorf("audit has %+v, want %d Secrets under %s", found, s.secrets, newest)
	}
}

func (s *site) mustBeUnder(keyID string) {
	s.t.Helper()
	if got, want := s.Etcd.KeyIDs(), map[string]int{keyID: s.secrets}; !maps.Equal(got, want) {
		s.t.Errorf("Secrets by key_id: %v, want %v", got, want)
	}
}
