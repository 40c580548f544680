// SPDX-License-Identifier: Apache-2.0

package doctor_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trousseau-io/trousseau/internal/config"
	"github.com/trousseau-io/trousseau/internal/ctl/doctor"
	"github.com/trousseau-io/trousseau/internal/ctl/fleet"
	"github.com/trousseau-io/trousseau/internal/daemon/kms"
	"github.com/trousseau-io/trousseau/internal/daemon/live"
	"github.com/trousseau-io/trousseau/internal/daemon/ops"
	"github.com/trousseau-io/trousseau/internal/daemon/unixsock"
	"github.com/trousseau-io/trousseau/internal/daemon/watch"
	"github.com/trousseau-io/trousseau/internal/endpoint"
	"github.com/trousseau-io/trousseau/internal/keyid"
	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

// node is a scene with a complete control plane node: the daemon's parts on a
// socket, its ops endpoints, an EncryptionConfiguration and a fake kube-apiserver.
type node struct {
	*scene
	socket     string
	encryption string // the text of the file
	ops        string // address of the ops endpoints
	contents   chan watch.Content[*config.Config]

	// Answers of kube-apiserver.
	providers int
	livez     int
	told      string        // the reported key_id
	ago       time.Duration // time since the report
}

// newNode returns a node; prepare may change its initial state.
func newNode(t *testing.T, prepare func(*scene)) *node {
	t.Helper()
	n := &node{scene: newScene(t), livez: 200, providers: 200, ago: time.Second, contents: make(chan watch.Content[*config.Config], 1)}
	sockets, err := os.MkdirTemp("", "kms") // a short path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(sockets) })
	n.socket = filepath.Join(sockets, "kms.sock")
	n.encryption = `apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets]
  providers:
  - kms: {apiVersion: v2, name: trousseau, endpoint: unix://` + n.socket + `, timeout: 30s}
`
	if prepare != nil {
		prepare(n.scene)
	}
	n.start()
	n.told = n.keyID()
	server := httptest.NewTLSServer(http.HandlerFunc(n.apiServer))
	t.Cleanup(server.Close)
	n.o.Socket = "unix://" + n.socket
	n.o.EncryptionConfig = filepath.Join(n.dir, "encryption.yaml")
	n.o.Kubeconfig = filepath.Join(n.dir, "kubeconfig")
	n.o.Nodes = n.nodes(n.ops)
	n.write(n.o.Kubeconfig, fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "%s", insecure-skip-tls-verify: true}}]
users: [{name: u, user: {token: kubernetes-token}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`, server.URL), 0o600)
	n.substitute = []string{sockets, "SOCKETS", n.ops, "OPS", server.URL, "APISERVER"}
	return n
}

// find has the nodes found, or not.
func (n *node) find(m fleet.Members, err error) {
	n.o.Find = func(context.Context) (fleet.Members, error) { return m, err }
}

func (n *node) nodes(addrs ...string) []fleet.Node {
	nodes, err := fleet.ParseNodes(addrs)
	if err != nil {
		n.t.Fatal(err)
	}
	return nodes
}

// start runs the daemon's parts until the end of the test. It returns once the
// configuration is adopted.
func (n *node) start() {
	t := n.t
	registry := prometheus.NewRegistry()
	kek := live.New(live.Options{
		Contents: n.contents, RequestTimeout: 15 * time.Second, ProbeInterval: time.Hour, OutageGrace: time.Minute, Registerer: registry,
	})
	listener, err := unixsock.Listen(t.Context(), unixsock.Options{Path: n.socket, Mode: 0o600})
	if err != nil {
		t.Fatal(err)
	}
	server := kms.New(kms.Options{KEK: kek, RequestTimeout: 15 * time.Second})
	ctx, cancel := context.WithCancel(context.Background())
	ended, served := make(chan struct{}), make(chan error, 1)
	adopted := kek.Replaced()
	go func() { defer close(ended); kek.Run(ctx) }()
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Shutdown(ctx)
		cancel()
		<-ended
		<-served
	})
	endpoints := httptest.NewServer(ops.Handler(ops.Options{Registry: registry, Ready: []ops.Check{{Name: "kek", Check: kek.Degraded}}}))
	t.Cleanup(endpoints.Close)
	n.ops = strings.TrimPrefix(endpoints.URL, "http://")
	// Without additional files, the configuration has no TLS.
	n.deliver(strings.NewReplacer(n.address, n.vault.URL(), n.caCert, "").Replace(n.configure()))
	select {
	case <-adopted:
	case <-time.After(30 * time.Second):
		t.Fatal("the configuration is not adopted")
	}
}

func (n *node) deliver(text string) {
	sum := sha256.Sum256([]byte(text))
	cfg, err := config.Parse([]byte(text), nil)
	n.contents <- watch.Content[*config.Config]{Path: n.file, Digest: hex.EncodeToString(sum[:]), Value: cfg, Err: err}
}

// keyID returns the key_id in Status.
func (n *node) keyID() string {
	socket, err := endpoint.Parse("unix://" + n.socket)
	if err != nil {
		n.t.Fatal(err)
	}
	p := fleet.AskPlugin(n.t.Context(), socket)
	if p.Error != "" {
		n.t.Fatal(p.Error)
	}
	return p.KeyID
}

// until waits for a text in the ops endpoints.
func (n *node) until(met func(fleet.State) bool) {
	n.t.Helper()
	var s fleet.State
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if s, _ = n.o.Nodes[0].Fetch(n.t.Context()); met(s) {
			return
		}
	}
	n.t.Fatalf("the node still says %+v", s)
}

// apiServer answers like kube-apiserver to a caller with the token.
func (n *node) apiServer(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "Bearer kubernetes-token" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	switch r.URL.Path {
	case "/livez":
		w.WriteHeader(n.livez)
	case "/readyz/kms-providers":
		w.WriteHeader(n.providers)
	case "/metrics":
		if n.told == "" {
			return
		}
		const name = "apiserver_envelope_encryption_key_id_hash_status_last_timestamp_seconds"
		fmt.Fprintf(w, "# TYPE %s gauge\n", name)
		fmt.Fprintf(w, "%s{provider_name=\"another\",key_id_hash=\"x\"} %d\n", name, time.Now().Unix())
		fmt.Fprintf(w, "%s{provider_name=\"trousseau\",key_id_hash=\"old\"} %d\n", name, time.Now().Add(-time.Hour).Unix())
		fmt.Fprintf(w, "%s{provider_name=\"trousseau\",key_id_hash=\"%s\"} %d\n", name, keyid.Hash(n.told), time.Now().Add(-n.ago).Unix())
	default:
		http.NotFound(w, r)
	}
}

func (n *node) examine() ([]string, doctor.Report) {
	n.t.Helper()
	n.write(n.o.EncryptionConfig, n.encryption, 0o600)
	return n.scene.examine()
}

// edit changes the EncryptionConfiguration.
func edit(old, with string) func(*node) {
	return func(n *node) {
		if !strings.Contains(n.encryption, old) {
			n.t.Fatalf("no %s in it", old)
		}
		n.encryption = strings.ReplaceAll(n.encryption, old, with)
	}
}

const startFix = "Start trousseau, or give its --listen-addr with --socket. journalctl -u trousseau shows why it ended."

var nodeSituations = []struct {
	name   string
	broken func(*node)
	want   []string
}{
	{"all is well", func(*node) {}, nil},

	{"no socket", func(n *node) {
		n.o.Socket = "unix://" + n.dir + "/none"
		edit(n.socket, n.dir+"/none")(n)
	}, []string{
		"fail socket DIR/none: the socket does not exist | " + startFix}},
	{"a file for a socket", func(n *node) {
		n.o.Socket = "unix://" + n.file
		edit(n.socket, n.file)(n)
	}, []string{
		"fail socket DIR/config.yaml: it is not a socket: ---------- | Move it away, and restart trousseau."}},
	{"no process listens", func(n *node) {
		dead := filepath.Join(filepath.Dir(n.socket), "dead")
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead, Net: "unix"})
		if err != nil {
			n.t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		l.Close()
		n.o.Socket = "unix://" + dead
		edit(n.socket, dead)(n)
	}, []string{
		"fail socket SOCKETS/dead: no process listens: the one that created it has ended | " + startFix}},
	{"socket for all", func(n *node) {
		for file, mode := range map[string]os.FileMode{n.socket: 0o666, filepath.Dir(n.socket): 0o755} {
			if err := os.Chmod(file, mode); err != nil {
				n.t.Fatal(err)
			}
		}
	}, []string{
		"warn socket-mode SOCKETS/kms.sock: anyone can connect, and have every seed decrypted: 0666 of ME | Start trousseau with --socket-mode=0600, or with 0660 and --socket-group."}},
	{"socket that all replace", func(n *node) {
		if err := os.Chmod(filepath.Dir(n.socket), 0o777); err != nil {
			n.t.Fatal(err)
		}
	}, []string{
		"fail socket-mode SOCKETS/kms.sock: anyone can put another socket in its place: SOCKETS has mode 0777 | Use a directory below /run that only trousseau uses, with mode 0750."}},
	{"a listener that is not a plugin", func(n *node) {
		other := filepath.Join(filepath.Dir(n.socket), "other")
		l, err := net.Listen("unix", other)
		if err != nil {
			n.t.Fatal(err)
		}
		go func() { _ = http.Serve(l, http.NotFoundHandler()) }()
		n.t.Cleanup(func() { l.Close() })
		n.o.Socket = "unix://" + other
		edit(n.socket, other)(n)
	}, []string{
		"fail plugin-status SOCKETS/other: Status failed: Unavailable: …"}},
	{"the key has moved on", func(n *node) { n.key.Rotate() }, []string{
		"fail plugin-key-id SOCKETS/kms.sock: the plugin uses version 1, but Vault has version 2 | Run doctor again in half a minute, after the plugin has asked Vault again (--probe-interval). Then read its log."}},
	{"another configuration", func(n *node) {
		n.vault.CreateKey("another")
		n.rules["transit/keys/another"] = []string{"read"}
		n.rules["transit/encrypt/another"], n.rules["transit/decrypt/another"] = []string{"update"}, []string{"update"}
		n.token, n.method = "", ""
		text := strings.Replace(n.configure(), "["+keyName+"]", "[another]", 1)
		n.write(n.file, text, 0o600)
	}, []string{
		"fail plugin-key-id SOCKETS/kms.sock: the plugin uses transit/kek, but the configuration says transit/another | Check above which process owns the socket, and with trousseauctl status which configuration it uses."}},

	{"nodes not found", func(n *node) { n.find(fleet.Members{}, errors.New("listing pods: pods is forbidden")) }, []string{
		"warn nodes-found: listing pods: pods is forbidden | Allow these credentials to find the pods, see docs/clusters.md, or name the nodes with --ops."}},
	{"a node is left out", func(n *node) {
		n.find(fleet.Members{Nodes: n.o.Nodes, APIServers: []fleet.APIServer{{Address: "10.0.0.1", Node: "n"}, {Address: "10.0.0.2"}}}, nil)
	}, []string{
		"fail nodes-found: The API server at 10.0.0.2 has no pod of trousseau on its node | Check why trousseau does not run there."}},
	{"no ops endpoints", func(n *node) { n.o.Nodes = n.nodes(n.ops, "127.0.0.1:1") }, []string{
		"fail node 127.0.0.1:1: connection refused… | Start trousseau there, or give the right addresses with --ops."}},
	{"configuration refused", func(n *node) {
		n.deliver("vault: {}\n")
		n.until(func(s fleet.State) bool { return s.Reload.Class != "" })
	}, []string{
		"fail node-config OPS: the current configuration is not in use: config | Read its log: it says what is wrong. The previous configuration stays in use."}},
	{"another node", func(n *node) {
		other := newNode(n.t, rotated)
		n.o.Nodes = append(n.o.Nodes, other.o.Nodes...)
		n.substitute = append(n.substitute, other.ops, "OTHER")
	}, []string{
		"fail nodes-agree: they announce 2 different key_ids: kek version 1 on OPS; kek version 2 on OTHER | Run doctor again in half a minute. If the nodes still differ, check that all have the same configuration and the same Vault."}},
	{"ops endpoints of another node", func(n *node) {
		other := newNode(n.t, rotated)
		n.o.Nodes = other.o.Nodes
	}, []string{
		"fail plugin-node: the plugin on the socket announces another key_id than the nodes | Check which process owns the socket, and that the addresses of --ops are right."}},

	{"the same name twice", edit("  providers:\n", "  providers:\n  - kms: {apiVersion: v2, name: trousseau, endpoint: unix:///other.sock, timeout: 3s}\n"), []string{
		"fail encryption-config DIR/encryption.yaml: line 7: …"}},
	{"another endpoint", edit("kms.sock", "kms-2.sock"), []string{
		`fail encryption-provider DIR/encryption.yaml: no kms provider has the endpoint unix://SOCKETS/kms.sock; there is "trousseau" at unix://SOCKETS/kms-2.sock | Write endpoint: unix://SOCKETS/kms.sock, or give the endpoint in the file to trousseau as --listen-addr and to doctor as --socket.`}},
	{"kms v1", edit("apiVersion: v2", "apiVersion: v1"), []string{
		`fail encryption-provider DIR/encryption.yaml: the provider "trousseau" writes with kms v1, for which trousseau only decrypts | Put a provider with apiVersion: v2 and another name first. …`}},
	{"kms v1 reads", func(n *node) {
		n.encryption += "  - kms: {apiVersion: v1, name: old, endpoint: unix://" + n.socket + ", timeout: 3s}\n"
	}, nil},
	{"identity first", edit("  providers:\n", "  providers:\n  - identity: {}\n"), []string{
		"fail encryption-order DIR/encryption.yaml: secrets are written in plaintext: identity is first | Put the plugin first: trousseauctl encryption-config FILE --phase write --in-place.",
		"warn encryption-identity DIR/encryption.yaml: secrets are also read in plaintext: anyone who can write to etcd can plant Secrets | Remove identity when trousseauctl audit finds no plaintext."}},
	{"only read", edit("  providers:\n", "  providers:\n  - aescbc: {keys: [{name: k, secret: MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=}]}\n"), []string{
		`warn encryption-order DIR/encryption.yaml: secrets are written by aescbc "k"; the plugin only reads | When every kube-apiserver can read through the plugin, put it first: trousseauctl encryption-config FILE --phase write --in-place.`}},
	{"two names while one is replaced", func(n *node) {
		edit("  providers:\n", "  providers:\n  - kms: {apiVersion: v2, name: new-name, endpoint: unix://"+n.socket+", timeout: 30s}\n")(n)
	}, nil},
	{"two names, and the old one has the shorter timeout", func(n *node) {
		edit("timeout: 30s", "timeout: 20s")(n)
		edit("  providers:\n", "  providers:\n  - kms: {apiVersion: v2, name: new-name, endpoint: unix://"+n.socket+", timeout: 30s}\n")(n)
	}, []string{
		`fail encryption-timeout DIR/encryption.yaml: the timeout of "trousseau" is 20s, …`}},
	{"our name at another plugin, before ours", func(n *node) {
		edit("  providers:\n", "  providers:\n  - kms: {apiVersion: v2, name: another, endpoint: unix:///other.sock, timeout: 30s}\n")(n)
	}, []string{
		`warn encryption-order DIR/encryption.yaml: secrets are written by kms v2 "another"; the plugin only reads | …`}},
	{"the socket by another path", func(n *node) {
		link := filepath.Join(n.dir, "run")
		if err := os.Symlink(filepath.Dir(n.socket), link); err != nil {
			n.t.Fatal(err)
		}
		edit("unix://"+filepath.Dir(n.socket), "unix://"+link)(n)
	}, nil},
	{"short timeout", edit("timeout: 30s", "timeout: 20s"), []string{
		`fail encryption-timeout DIR/encryption.yaml: the timeout of "trousseau" is 20s, but trousseau may take 20s: kube-apiserver gives up before the answer | Write a longer timeout, such as timeout: 40s, or start trousseau with a shorter --request-timeout.`}},

	{"no kubeconfig", func(n *node) { n.o.Kubeconfig = n.dir + "/none" }, []string{
		"fail kubeconfig DIR/none: no such file or directory | Give the path of one that works with kubectl."}},
	{"not a kubeconfig", func(n *node) { n.o.Kubeconfig = n.file }, []string{
		"fail kubeconfig DIR/config.yaml: DIR/config.yaml is not a kubeconfig with a current context | Give the path of one that works with kubectl."}},
	{"stale kubeconfig", func(n *node) { n.livez = 401 }, []string{
		"fail apiserver: kube-apiserver does not accept the credentials (401) | Give a kubeconfig with valid credentials."}},
	{"no encryption in the API server", func(n *node) { n.providers = 404 }, []string{
		"fail apiserver-kms: kube-apiserver has no KMS plugin (404) | Start kube-apiserver with --encryption-provider-config. If the file has changed and is not reloaded, restart kube-apiserver."}},
	{"plugin not usable for the API server", func(n *node) { n.providers = 500 }, []string{
		"fail apiserver-kms: kube-apiserver cannot use one of its KMS plugins (500) | Read its log: it names the plugin and the plugin's answer."}},
	{"API server not asked yet", func(n *node) { n.told = "" }, []string{
		"fail apiserver-key-id: kube-apiserver has not asked this plugin yet | Check that EncryptionConfiguration lists the plugin, and that kube-apiserver has loaded it."}},
	{"API server behind", func(n *node) { n.told = "another" }, []string{
		"warn apiserver-key-id: kube-apiserver received another key_id …"}},
	{"API server elsewhere", func(n *node) { n.told, n.ago = "another", 30*time.Minute }, []string{
		"fail apiserver-key-id: kube-apiserver received another key_id, and has not asked again for 30 minutes | Check that it asks this plugin at all, and read kube-apiserver's log."}},
}

// TestNodeSituations breaks one thing at a time on a node with a daemon: doctor must
// find that and nothing else.
func TestNodeSituations(t *testing.T) {
	for _, c := range nodeSituations {
		t.Run(c.name, func(t *testing.T) {
			n := newNode(t, nil)
			c.broken(n)
			found, _ := n.examine()
			mustFind(t, found, c.want)
		})
	}
}

// rotated has another key_id than the other node, even if both were created in the
// same second.
func rotated(s *scene) { s.key.Rotate() }

// TestTokenThatExpires expects warnings for both the configuration's and the node's
// token.
func TestTokenThatExpires(t *testing.T) {
	n := newNode(t, func(s *scene) {
		s.options = vaulttest.TokenOptions{Orphan: true, TTL: 73 * time.Hour, NotRenewable: true}
	})
	n.until(func(s fleet.State) bool { return !s.Token.Expires.IsZero() })
	found, _ := n.examine()
	mustFind(t, found, []string{
		"warn token-life: it expires in 3 days and cannot be renewed | …",
		"warn node-token OPS: it expires in 3 days, and trousseau cannot renew it | Have a new token written in time, or issue a periodic one.",
	})
}

// TestNothingIsNeverWrong checks that every check fails in at least one situation.
func TestNothingIsNeverWrong(t *testing.T) {
	var wrong []string
	for _, c := range vaultSituations {
		wrong = append(wrong, c.want...)
	}
	for _, c := range nodeSituations {
		wrong = append(wrong, c.want...)
	}
	n := newNode(t, nil)
	n.o.Nodes = n.nodes(n.ops, strings.Replace(n.ops, "127.0.0.1", "localhost", 1))
	_, r := n.examine()
	if r.Failed+r.Warned+r.Skipped > 0 {
		t.Errorf("healthy node: got report %+v", r)
	}
	for _, f := range r.Checks {
		if f.Name == "node-token" {
			continue // see TestTokenThatExpires
		}
		ok := false
		for _, w := range wrong {
			ok = ok || strings.HasPrefix(w, "fail "+f.Name+":") || strings.HasPrefix(w, "fail "+f.Name+" ") ||
				strings.HasPrefix(w, "warn "+f.Name+":") || strings.HasPrefix(w, "warn "+f.Name+" ")
		}
		if !ok {
			t.Errorf("no situation makes %s fail or warn", f.Name)
		}
	}
}
