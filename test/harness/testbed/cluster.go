// SPDX-License-Identifier: Apache-2.0

package testbed

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Options describe a [Cluster]. The zero value is one control-plane node and a
// single Vault node.
type Options struct {
	VaultNodes    int // 0 means 1
	ControlPlanes int // 0 means 1

	// Hosts are the control planes' addresses on the loopback interface. On each, an
	// API server listens on port 6443 and Trousseau's ops endpoints on port 8095. If
	// empty, 127.0.0.1 and free ports are used.
	Hosts []string
	// Etcd replaces the default etcd, which has no TLS.
	Etcd *Etcd

	// RenderInterval is the agents' static_secret_render_interval; "" means 2s. The
	// documented one is 30s.
	RenderInterval string
	// Fields are additional fields of the KV secret, as name=value. Render them with
	// TemplateLines.
	Fields []string
	// TemplateLines are additional lines below vault: in the documented template, such
	// as "transitPath: {{ .Data.data.transitpath }}".
	TemplateLines []string

	// TrousseauFlags and APIServerFlags are added to the flags for ports, files and
	// EncryptionConfiguration.
	TrousseauFlags []string
	APIServerFlags []string
}

// Key is the name of the transit key used in the documentation.
const Key = "trousseau-kms-vault"

// documentedInterval is the static_secret_render_interval in the documentation.
const documentedInterval = "30s"

// Cluster is a Kubernetes control plane whose Secrets are encrypted by Trousseau
// with a key in Vault. Each part is set up with the files shown in the documentation.
type Cluster struct {
	*Bed
	Etcd  *Etcd
	Vault *Vault
	// Proxy is the address of Vault for agents and Trousseau. Vault's methods bypass
	// it.
	Proxy *Proxy
	// Nodes are the control-plane nodes.
	Nodes []*Node

	options     Options
	credentials *Credentials
	secrets     []string // must not appear in any log
}

// Node is one control-plane node.
type Node struct {
	APIServer *APIServer
	Trousseau *Trousseau
	Agent     *Server

	// Dir is the node's directory, which holds config.yaml and other files.
	Dir string
	// ConfigFile is the file that the agent renders.
	ConfigFile string

	cluster *Cluster
	name    string
}

// SetUp sets up a cluster and returns it once its API servers and their KMS plugins
// are healthy. To save a restart, the API servers start with EncryptionConfiguration
// in place. A scenario that needs another order calls [Cluster.SetUpVault] and the
// other steps itself.
func SetUp(b *Bed, o Options) *Cluster {
	b.t.Helper()
	c := NewCluster(b, o)
	for _, n := range c.Nodes {
		n.Trousseau.Start()
		n.Encrypt()
		n.APIServer.Start()
	}
	c.SetUpVault()
	for _, n := range c.Nodes {
		n.SetUpAgent()
		n.Agent.Start()
	}
	for _, n := range c.Nodes {
		n.Trousseau.AwaitReady()
		n.APIServer.AwaitReady()
	}
	return c
}

// NewCluster starts etcd, an empty Vault and the proxy in front of it, and prepares
// the nodes.
func NewCluster(b *Bed, o Options) *Cluster {
	b.t.Helper()
	if o.RenderInterval == "" {
		o.RenderInterval = "2s"
	}
	if o.Etcd == nil {
		o.Etcd = b.StartEtcd()
	}
	c := &Cluster{Bed: b, options: o, Etcd: o.Etcd, Vault: b.StartVault(VaultOptions{Nodes: o.VaultNodes})}
	c.Proxy = b.StartProxy(c.Vault.Addresses()...)
	c.credentials = b.NewCredentials()
	for i := range max(1, o.ControlPlanes, len(o.Hosts)) {
		api, ops := b.freeAddr(), b.freeAddr()
		if len(o.Hosts) > 0 {
			api, ops = o.Hosts[i]+":6443", o.Hosts[i]+":8095"
		}
		name := fmt.Sprintf("node%d", i+1)
		dir := filepath.Join(b.Dir, name)
		if err := os.MkdirAll(filepath.Join(dir, "run"), 0o700); err != nil {
			b.t.Fatal(err)
		}
		n := &Node{cluster: c, name: name, Dir: dir, ConfigFile: filepath.Join(dir, "config.yaml")}
		n.APIServer = b.newAPIServer(api, "apiserver-"+name, c.Etcd, c.credentials, o.APIServerFlags...)
		n.Trousseau = b.newTrousseau(ops, "trousseau-"+name, n.ConfigFile, n.socket(), o.TrousseauFlags...)
		c.Nodes = append(c.Nodes, n)
	}
	b.t.Cleanup(func() {
		for _, s := range b.all() {
			if s.path == b.Binary {
				s.mustNotHaveLogged(c.secrets)
			}
		}
	})
	return c
}

// NewTrousseau prepares another trousseau on the node's socket, for example for a
// takeover. The caller starts it.
func (n *Node) NewTrousseau(name string, flags ...string) *Trousseau {
	n.cluster.t.Helper()
	return n.cluster.Bed.NewTrousseau(name, n.ConfigFile, n.socket(), append(flags, n.cluster.options.TrousseauFlags...)...)
}

func (n *Node) socket() string { return filepath.Join(n.Dir, "run", "kms.sock") }

// Encrypt gives the node's API server the documented EncryptionConfiguration. It takes
// effect at the next start.
func (n *Node) Encrypt() {
	n.cluster.t.Helper()
	file := n.cluster.Write(filepath.Join(n.Dir, "encryption-config.yaml"),
		n.cluster.Documented("encryption-config.yaml", "unix:///run/trousseau/kms.sock", "unix://"+n.Trousseau.Socket))
	n.APIServer.Args = append(n.APIServer.Args,
		"--encryption-provider-config="+file, "--encryption-provider-config-automatic-reload=true")
}

// SetUpVault waits until the first API server is live and runs the documented commands
// against it and Vault. They create the ServiceAccount, engines, key, policies,
// token, KV secret and Kubernetes auth.
func (c *Cluster) SetUpVault() {
	c.t.Helper()
	api := c.Nodes[0].APIServer
	api.AwaitLive()
	api.Kubectl("apply", "-f", c.Write("setup/service-account.yaml", c.Documented("service-account.yaml")))

	c.Write("setup/policy.hcl", c.Documented("policy.hcl"))
	c.Write("setup/agent-policy.hcl", c.Documented("agent-policy.hcl"))
	script := c.Write("setup/setup.sh", c.Documented("setup.sh"))
	c.Vault.CLI("secrets", "enable", "-path=secret", "-version=2", "kv")
	cmd := exec.CommandContext(c.t.Context(), "/bin/sh", script)
	cmd.Dir = filepath.Dir(script)
	cmd.Env = append(c.Vault.environment("https://"+c.Proxy.Addr, c.Vault.root),
		"KUBERNETES_HOST="+api.URL, "KUBERNETES_CA="+c.ca.File)
	if _, err := c.command(cmd); err != nil {
		c.t.Fatal(err)
	}
	if len(c.options.Fields) > 0 {
		c.Configure(c.options.Fields...)
	}
	c.secrets = append(c.secrets, c.Vault.root, c.Vault.CLI("kv", "get", "-field=vaulttoken", "secret/trousseau/config"))
}

// SetUpAgent prepares the node's Vault Agent with a ServiceAccount token and the
// documented configuration and template. The caller starts it. Call it again while the
// agent is stopped to change the interval.
func (n *Node) SetUpAgent() {
	n.cluster.t.Helper()
	n.setUpAgent(n.cluster.options.RenderInterval)
}

// SetUpAgentAsDocumented is SetUpAgent with the interval of the documentation.
func (n *Node) SetUpAgentAsDocumented() {
	n.cluster.t.Helper()
	n.setUpAgent(documentedInterval)
}

func (n *Node) setUpAgent(interval string) {
	c := n.cluster
	c.t.Helper()
	account := c.Write(filepath.Join(n.Dir, "token"),
		strings.TrimSpace(n.APIServer.Kubectl("create", "token", "trousseau", "--namespace=kube-system")))

	lines := append([]string{"vaultCACert: " + c.ca.File}, c.options.TemplateLines...)
	tokenLine := "  token: {{ .Data.data.vaulttoken }} \n"
	template := c.Write(filepath.Join(n.Dir, "config.yaml.ctmpl"),
		c.Documented("config.yaml.ctmpl", tokenLine, tokenLine+"  "+strings.Join(lines, "\n  ")+"\n"))

	address := `address = "https://vault.example:8200"`
	config := c.Write(filepath.Join(n.Dir, "agent.hcl"), c.Documented("agent.hcl",
		address, fmt.Sprintf("address = \"https://%s\"\n  ca_cert = \"%s\"", c.Proxy.Addr, c.ca.File),
		"/var/run/secrets/kubernetes.io/serviceaccount/token", account,
		`"`+documentedInterval+`"`, `"`+interval+`"`,
		`"/etc/trousseau/config.yaml.ctmpl"`, `"`+template+`"`,
		`"/etc/trousseau/config.yaml"`, `"`+n.ConfigFile+`"`,
	))
	if n.Agent == nil {
		n.Agent = c.newServer("agent-"+n.name, c.tool("vault"), "agent", "-config="+config)
	}
}

// Configure changes fields of the KV secret, given as name=value; the agents then
// render them. For a token use [Cluster.ConfigureToken].
func (c *Cluster) Configure(fields ...string) {
	c.t.Helper()
	c.Vault.CLI(append([]string{"kv", "patch", "secret/trousseau/config"}, fields...)...)
}

// ConfigureToken writes a token, and further fields, to the KV secret as
// docs/operations.md describes.
func (c *Cluster) ConfigureToken(token Token, fields ...string) {
	c.t.Helper()
	c.secrets = append(c.secrets, token.ID)
	c.Vault.CLIWithInput(token.ID, append([]string{"kv", "patch", "secret/trousseau/config", "vaulttoken=-"}, fields...)...)
}

// Token is a Vault token.
type Token struct{ ID, Accessor string }

// NewToken creates a token for Trousseau as the documentation does. If policies are given,
// they replace the documented ones.
func (v *Vault) NewToken(policies ...string) Token {
	v.bed.t.Helper()
	if len(policies) == 0 {
		policies = []string{"trousseau"}
	}
	args := []string{"token", "create", "-orphan", "-period=768h", "-format=json"}
	for _, p := range policies {
		args = append(args, "-policy="+p)
	}
	var answer struct {
		Auth struct {
			ID       string `json:"client_token"`
			Accessor string `json:"accessor"`
		} `json:"auth"`
	}
	if err := json.Unmarshal([]byte(v.CLI(args...)), &answer); err != nil {
		v.bed.t.Fatalf("reading the vault command's output: %v", err)
	}
	return Token{ID: answer.Auth.ID, Accessor: answer.Auth.Accessor}
}

// Revoke revokes a token. It is unusable when Revoke returns.
func (v *Vault) Revoke(t Token) {
	v.bed.t.Helper()
	v.AwaitActive().must(http.MethodPost, "auth/token/revoke-accessor", map[string]string{"accessor": t.Accessor})
}

// Accepts reports whether Vault accepts the token.
func (v *Vault) Accepts(t Token) bool {
	v.bed.t.Helper()
	_, err := v.Try(t.ID, "", "token", "lookup")
	return err == nil
}

// Uses is a condition for [Bed.Await]: the process uses the token.
func (p *Trousseau) Uses(t Token) func(context.Context) error {
	sum := sha256.Sum256([]byte(t.Accessor))
	return p.MetricIs(1, "trousseau_vault_token_info", "accessor_hash", hex.EncodeToString(sum[:]))
}

// Rendered is a condition for [Bed.Await]: the node's config.yaml contains the text.
func (n *Node) Rendered(text string) func(context.Context) error {
	return func(context.Context) error {
		content, err := os.ReadFile(n.ConfigFile)
		if err == nil && !strings.Contains(string(content), text) {
			err = fmt.Errorf("%s does not contain the expected text", n.ConfigFile)
		}
		return err
	}
}
