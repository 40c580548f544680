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
// Vault of one node.
type Options struct {
	VaultNodes    int // 0 means 1
	ControlPlanes int // 0 means 1

	// Hosts are the control planes' addresses, on the loopback interface: there,
	// an API server listens at port 6443, and Trousseau's pages at 8095. None
	// means 127.0.0.1 and free ports.
	Hosts []string
	// Etcd is instead of one without TLS.
	Etcd *Etcd

	// RenderInterval is the agents' static_secret_render_interval instead of
	// the README's 30s; "" means 2s.
	RenderInterval string
	// Fields are further fields of the KV secret, as name=value. Each is
	// rendered too: see TemplateLines.
	Fields []string
	// TemplateLines are further lines below vault: in the README's template,
	// such as "transitPath: {{ .Data.data.transitpath }}".
	TemplateLines []string

	// TrousseauFlags and APIServerFlags are beside those that name ports,
	// files and EncryptionConfiguration.
	TrousseauFlags []string
	APIServerFlags []string
}

// Key is the name of the transit key in the README.
const Key = "trousseau-kms-vault"

// documentedInterval is the README's static_secret_render_interval.
const documentedInterval = "30s"

// Cluster is a Kubernetes control plane whose Secrets are encrypted by
// Trousseau with a key in Vault, each part set up with the README's own files.
type Cluster struct {
	*Bed
	Etcd  *Etcd
	Vault *Vault
	// Proxy is what agents and Trousseau know as Vault's address. The methods
	// of Vault do without it.
	Proxy *Proxy
	// Nodes are the control-plane nodes.
	Nodes []*Node

	options Options
	secrets []string // that no log may hold
}

// Node is one control-plane node.
type Node struct {
	APIServer *APIServer
	Trousseau *Trousseau
	Agent     *Server

	// Dir is the node's directory, of config.yaml and more.
	Dir string
	// ConfigFile is what the agent renders.
	ConfigFile string

	cluster *Cluster
	name    string
}

// SetUp sets a cluster up and returns it when its API servers and their KMS
// plugins are healthy. The API servers start with EncryptionConfiguration in
// place, to save a restart; [Cluster.SetUpVault] and the other steps are for a
// scenario that wants another order.
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

// NewCluster starts etcd, an empty Vault and the proxy before it, and prepares
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
	shared := b.NewCredentials()
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
		n.APIServer = b.newAPIServer(api, "apiserver-"+name, c.Etcd, shared, o.APIServerFlags...)
		n.Trousseau = b.newTrousseau(ops, "trousseau-"+name, n.ConfigFile, n.socket(), o.TrousseauFlags...)
		c.Nodes = append(c.Nodes, n)
	}
	b.t.Cleanup(func() {
		for _, s := range b.servers {
			if s.path == b.Binary {
				s.mustNotHaveLogged(c.secrets)
			}
		}
	})
	return c
}

// NewTrousseau prepares another trousseau on the node's socket, to take it over
// for instance, for the caller to start.
func (n *Node) NewTrousseau(name string, flags ...string) *Trousseau {
	n.cluster.t.Helper()
	return n.cluster.Bed.NewTrousseau(name, n.ConfigFile, n.socket(), append(flags, n.cluster.options.TrousseauFlags...)...)
}

func (n *Node) socket() string { return filepath.Join(n.Dir, "run", "kms.sock") }

// Encrypt gives the node's API server the README's EncryptionConfiguration,
// from its next start on.
func (n *Node) Encrypt() {
	n.cluster.t.Helper()
	file := n.cluster.Write(filepath.Join(n.Dir, "encryption-config.yaml"),
		n.cluster.Documented("encryption-config.yaml", "unix:///run/trousseau/kms.sock", "unix://"+n.Trousseau.Socket))
	n.APIServer.Args = append(n.APIServer.Args,
		"--encryption-provider-config="+file, "--encryption-provider-config-automatic-reload=true")
}

// SetUpVault waits until the first API server lives and runs the README's
// commands against it and Vault: ServiceAccount, engines, key, policies, token,
// KV secret and Kubernetes auth.
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

// SetUpAgent prepares the node's Vault Agent, with a ServiceAccount token and
// the README's configuration and template, for the caller to start. Done anew
// with the agent stopped, it changes the interval.
func (n *Node) SetUpAgent() {
	n.cluster.t.Helper()
	n.setUpAgent(n.cluster.options.RenderInterval)
}

// SetUpAgentAsDocumented is SetUpAgent with the README's own interval.
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

// Configure changes fields of the KV secret, given as name=value, which the
// agents then render. A token goes with [Cluster.ConfigureToken].
func (c *Cluster) Configure(fields ...string) {
	c.t.Helper()
	c.Vault.CLI(append([]string{"kv", "patch", "secret/trousseau/config"}, fields...)...)
}

// ConfigureToken puts a token into the KV secret, the way docs/operations.md
// says, and further fields with it.
func (c *Cluster) ConfigureToken(token Token, fields ...string) {
	c.t.Helper()
	c.secrets = append(c.secrets, token.ID)
	c.Vault.CLIWithInput(token.ID, append([]string{"kv", "patch", "secret/trousseau/config", "vaulttoken=-"}, fields...)...)
}

// Token is a token of Vault.
type Token struct{ ID, Accessor string }

// NewToken makes a token for Trousseau, as the README does; further policies
// are instead of the README's.
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
		v.bed.t.Fatalf("reading what the vault command said: %v", err)
	}
	return Token{ID: answer.Auth.ID, Accessor: answer.Auth.Accessor}
}

// Revoke ends a token; it is dead when this returns.
func (v *Vault) Revoke(t Token) {
	v.bed.t.Helper()
	v.AwaitActive().must(http.MethodPost, "auth/token/revoke-accessor", map[string]string{"accessor": t.Accessor})
}

// Accepts reports whether Vault knows the token.
func (v *Vault) Accepts(t Token) bool {
	v.bed.t.Helper()
	_, err := v.Try(t.ID, "", "token", "lookup")
	return err == nil
}

// Uses is met when the process has adopted a token; see [Bed.Await].
func (p *Trousseau) Uses(t Token) func(context.Context) error {
	sum := sha256.Sum256([]byte(t.Accessor))
	return p.MetricIs(1, "trousseau_vault_token_info", "accessor_hash", hex.EncodeToString(sum[:]))
}

// Rendered is met when the node's config.yaml holds a text; see [Bed.Await].
func (n *Node) Rendered(text string) func(context.Context) error {
	return func(context.Context) error {
		content, err := os.ReadFile(n.ConfigFile)
		if err == nil && !strings.Contains(string(content), text) {
			err = fmt.Errorf("%s does not hold what is awaited", n.ConfigFile)
		}
		return err
	}
}
