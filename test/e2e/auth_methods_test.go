// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"path/filepath"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// policy is the policy setting of each role, from the documentation.
const policy = "token_policies=trousseau"

// newMethod prepares a trousseau with its own auth mount, and a role at the path
// below it with further settings.
func newMethod(t *testing.T, c *testbed.Cluster, name, mount, role string, settings ...string) *login {
	t.Helper()
	l := newLogin(t, c, name)
	l.mount = mount
	l.role = func(tokens ...string) {
		args := append([]string{"write", "auth/" + mount + "/" + role, policy}, settings...)
		c.Vault.CLI(append(args, tokens...)...)
	}
	l.role(longLived...)
	return l
}

// appRole logs in with a role ID and a secret ID.
func appRole(t *testing.T, c *testbed.Cluster) *login {
	t.Helper()
	c.Vault.CLI("auth", "enable", "approle")
	l := newMethod(t, c, "AppRole", "approle", "role/trousseau")
	file := filepath.Join(l.dir, "secret-id")
	l.supply = func() { c.Replace(file, newSecretID(c, "approle/role/trousseau")) }
	l.supply()
	l.configure("roleID: "+roleID(c, "approle/role/trousseau"), "secretIDFile: "+file)
	return l
}

func roleID(c *testbed.Cluster, role string) string {
	return c.Vault.CLI("read", "-field=role_id", "auth/"+role+"/role-id")
}

func newSecretID(c *testbed.Cluster, role string) string {
	id := c.Vault.CLI("write", "-f", "-field=secret_id", "auth/"+role+"/secret-id")
	c.KeepSecret(id)
	return id
}

// certificate logs in with a TLS client certificate. The pair is in a directory that
// kubelet updates, because both files must change atomically.
func certificate(t *testing.T, c *testbed.Cluster) *login {
	t.Helper()
	c.Vault.CLI("auth", "enable", "cert")
	l := newMethod(t, c, "TLS certificate", "cert", "certs/trousseau", "certificate=@"+c.CAFile(), "allowed_common_names=trousseau")
	dir := filepath.Join(l.dir, "tls")
	l.supply = func() {
		cert, key := c.IssueClient("trousseau")
		block, _ := pem.Decode([]byte(key))
		c.KeepSecret("PRIVATE KEY", base64.StdEncoding.EncodeToString(block.Bytes)[:64])
		c.Project(dir, map[string]string{"tls.crt": cert, "tls.key": key})
	}
	l.supply()
	l.configure("clientCert: "+filepath.Join(dir, "tls.crt"), "clientKey: "+filepath.Join(dir, "tls.key"))
	return l
}

// serviceAccount logs in with a token of the documented ServiceAccount, which Vault
// verifies with kube-apiserver. The token is in a directory that kubelet updates.
func serviceAccount(t *testing.T, c *testbed.Cluster) *login {
	t.Helper()
	l := newMethod(t, c, "Kubernetes", "kubernetes", "role/trousseau-itself",
		"bound_service_account_names=trousseau", "bound_service_account_namespaces=kube-system",
		"audience=https://kubernetes.default.svc")
	dir := filepath.Join(l.dir, "serviceaccount")
	l.supply = func() {
		token := c.Nodes[0].APIServer.Kubectl("create", "token", "trousseau", "--namespace=kube-system")
		c.KeepSecret(token[:len(token)-1])
		c.Project(dir, map[string]string{"token": token})
	}
	l.supply()
	l.configure("kubernetes:", "  role: trousseau-itself", "  tokenFile: "+filepath.Join(dir, "token"))
	return l
}

// platformJWT logs in with a JWT whose signature Vault verifies itself.
func platformJWT(t *testing.T, c *testbed.Cluster) *login {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	publicFile := c.Write("platform.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})))
	c.Vault.CLI("auth", "enable", "jwt")
	c.Vault.CLI("write", "auth/jwt/config", "jwt_validation_pubkeys=@"+publicFile, "bound_issuer=https://platform.example")
	l := newMethod(t, c, "JWT", "jwt", "role/trousseau", "role_type=jwt", "bound_audiences=vault", "bound_subject=control-plane", "user_claim=sub")
	file := filepath.Join(l.dir, "jwt")
	l.supply = func() {
		jwt := signJWT(t, key, map[string]any{
			"iss": "https://platform.example", "aud": "vault", "sub": "control-plane", "jti": rand.Text(),
			"iat": time.Now().Unix(), "nbf": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
		})
		c.KeepSecret(jwt)
		c.Replace(file, jwt)
	}
	l.supply()
	l.configure("jwt:", "  role: trousseau", "  tokenFile: "+file)
	return l
}

// signJWT creates a compact JWT (RFC 7519), signed with RS256 (RFC 7518).
func signJWT(t *testing.T, key *rsa.PrivateKey, claims map[string]any) string {
	t.Helper()
	part := func(v any) string {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(text)
	}
	signed := part(map[string]string{"alg": "RS256", "typ": "JWT"}) + "." + part(claims)
	sum := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// batchTokens logs in with AppRole at a custom mount and gets tokens that cannot be
// renewed.
func batchTokens(t *testing.T, c *testbed.Cluster) *login {
	t.Helper()
	c.Vault.CLI("auth", "enable", "-path=platform/batch", "approle")
	c.Vault.CLI("write", "auth/platform/batch/role/trousseau", policy, "token_type=batch", "token_ttl=6s")
	l := newLogin(t, c, "batch tokens")
	l.configure("authPath: platform/batch",
		"roleID: "+roleID(c, "platform/batch/role/trousseau"), "secretID: "+newSecretID(c, "platform/batch/role/trousseau"))
	return l
}

// agentsMount is the auth mount of the agent.
const agentsMount = "agents"

// startAgent starts a Vault Agent with short-lived tokens.
func startAgent(c *testbed.Cluster) *testbed.Agent {
	const role = agentsMount + "/role/agent"
	c.Vault.CLI("auth", "enable", "-path="+agentsMount, "approle")
	c.Vault.CLI(append([]string{"write", "auth/" + role, policy}, shortLivedForAgent...)...)
	agent := c.NewAgent("agent", agentsMount, roleID(c, role), newSecretID(c, role))
	agent.Start()
	return agent
}
