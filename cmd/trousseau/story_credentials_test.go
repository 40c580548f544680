// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

// method is the auth method that a story uses.
type method struct {
	tokens func() []vaulttest.Token // live tokens issued by logins
	issue  func() string            // a new secret ID or JWT; nil for certificates
}

// auth approle|kubernetes|jwt|cert [PATH] enables an auth method at PATH, by default
// its usual name, with a role trousseau whose tokens have the minimal policy.
// AppRole's role ID is $ROLE_ID.
func cmdAuth(ts *testscript.TestScript, neg bool, args []string) {
	const role = "trousseau"
	s, kind, path := storyOf(ts), args[0], args[0]
	if len(args) > 1 {
		path = args[1]
	}
	token := vaulttest.TokenOptions{
		TTL: time.Hour, Rules: vaulttest.TransitPolicy("transit", "trousseau-kms-vault"),
	}
	switch kind {
	case "approle":
		m := s.vault.EnableAppRole("", path)
		ts.Setenv("ROLE_ID", m.SetRole(role, token))
		s.method = method{m.Tokens, func() string { return m.NewSecretID(role) }}
	case "kubernetes":
		m := s.vault.EnableKubernetes("", path)
		m.SetRole(role, token)
		s.method = method{m.Tokens, func() string { return m.NewJWT(role) }}
	case "jwt":
		m := s.vault.EnableJWT("", path)
		m.SetRole(role, token)
		m.SetDefaultRole(role)
		s.method = method{m.Tokens, func() string { return m.NewJWT(role) }}
	case "cert":
		m := s.vault.EnableCert("", path)
		m.SetRole(role, vaulttest.CertOptions{Token: token})
		s.method = method{tokens: m.Tokens}
	default:
		ts.Fatalf("auth: unknown method %s", kind)
	}
}

// credential NAME sets NAME to a new secret ID or JWT for the role.
func cmdCredential(ts *testscript.TestScript, neg bool, args []string) {
	ts.Setenv(args[0], storyOf(ts).method.issue())
}

// certificate CERT KEY writes a new client certificate and its key to two files.
func cmdCertificate(ts *testscript.TestScript, neg bool, args []string) {
	cert, key := storyOf(ts).vault.IssueClientCert("trousseau")
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), cert, 0o600))
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), key, 0o600))
}

// tokens N waits until exactly N tokens issued by logins are live.
func cmdTokens(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := -1
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if got = len(storyOf(ts).method.tokens()); got == want {
			return
		}
	}
	ts.Fatalf("tokens %d: still %d", want, got)
}

// [!] alive TOKEN fails unless Vault accepts the token; with !, if it does.
func cmdAlive(ts *testscript.TestScript, neg bool, args []string) {
	if storyOf(ts).vault.TokenAlive(args[0]) == neg {
		ts.Fatalf("alive: %v", !neg)
	}
}

// https FILE adds a node with TLS as $VAULT_TLS, and writes its CA to FILE. A second
// call changes the node's CA.
func cmdHTTPS(ts *testscript.TestScript, neg bool, args []string) {
	s := storyOf(ts)
	if s.https == nil {
		node, err := vaulttest.New(vaulttest.Options{TLS: true, Join: s.vault})
		ts.Check(err)
		ts.Defer(node.Close)
		ts.Setenv("VAULT_TLS", node.URL())
		s.https = node
	} else {
		ts.Check(s.https.RotateCA())
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), s.https.CAPEM(), 0o600))
}

// agent starts a Vault Agent whose API proxy, $AGENT, adds the agent's token. The
// token is $TOKEN.
func cmdAgent(ts *testscript.TestScript, neg bool, args []string) {
	agent, err := vaulttest.NewProxy(storyOf(ts).vault, vaulttest.ProxyOptions{
		Token: vaulttest.TokenOptions{Rules: vaulttest.TransitPolicy("transit", "trousseau-kms-vault")},
	})
	ts.Check(err)
	ts.Defer(agent.Close)
	ts.Setenv("AGENT", agent.URL())
	ts.Setenv("TOKEN", agent.Token().ID)
}

// project DIR FILE... writes the files to a directory as kubelet does: into a new
// subdirectory, to which the symlink ..data is then switched (kubelet's
// atomic_writer.go).
func cmdProject(ts *testscript.TestScript, neg bool, args []string) {
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o700))
	fresh, err := os.MkdirTemp(dir, "..")
	ts.Check(err)
	for _, file := range args[1:] {
		name := filepath.Base(file)
		ts.Check(os.WriteFile(filepath.Join(fresh, name), []byte(ts.ReadFile(file)), 0o600))
		if _, err := os.Lstat(filepath.Join(dir, name)); os.IsNotExist(err) {
			ts.Check(os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)))
		}
	}
	data := filepath.Join(dir, "..data")
	before, _ := os.Readlink(data) // none the first time
	ts.Check(os.Symlink(filepath.Base(fresh), data+"_tmp"))
	ts.Check(os.Rename(data+"_tmp", data))
	if before != "" {
		ts.Check(os.RemoveAll(filepath.Join(dir, before)))
	}
}
