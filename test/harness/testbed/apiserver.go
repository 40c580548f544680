// SPDX-License-Identifier: Apache-2.0

package testbed

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// Credentials are shared by the API servers of one cluster: a key for signing
// ServiceAccount tokens, and one administrator.
type Credentials struct {
	signingKey string // file
	tokens     string // file
	admin      string // token
}

// APIServer is a kube-apiserver. Several may share one etcd.
type APIServer struct {
	*Server
	// URL is the address it listens on.
	URL string
	// Client has an administrator's rights and no rate limit.
	Client *kubernetes.Clientset

	bed        *Bed
	kubeconfig string
	rest       rest.Interface
}

// apiServerWithin bounds a start when two start at once on two cores.
const apiServerWithin = 2 * time.Minute

// NewAPIServer prepares a kube-apiserver with additional flags. The caller starts it
// and waits until it is ready.
func (b *Bed) NewAPIServer(name string, etcd *Etcd, c *Credentials, flags ...string) *APIServer {
	b.t.Helper()
	return b.newAPIServer(b.freeAddr(), name, etcd, c, flags...)
}

// newAPIServer is NewAPIServer listening on addr (host:port).
func (b *Bed) newAPIServer(addr, name string, etcd *Etcd, c *Credentials, flags ...string) *APIServer {
	b.t.Helper()
	host, port, _ := strings.Cut(addr, ":")
	cert, key := b.issue(name)
	if etcd.CertFile != "" {
		flags = append([]string{"--etcd-cafile=" + b.ca.File, "--etcd-certfile=" + etcd.CertFile, "--etcd-keyfile=" + etcd.KeyFile}, flags...)
	}
	s := &APIServer{bed: b, URL: "https://" + addr}
	s.Server = b.newServer(name, b.tool("kube-apiserver"), append([]string{
		"--etcd-servers=" + etcd.URL,
		"--bind-address=" + host, "--advertise-address=" + host, "--secure-port=" + port,
		"--tls-cert-file=" + cert, "--tls-private-key-file=" + key, "--cert-dir=" + filepath.Join(b.Dir, name+".certs"),
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + c.signingKey, "--service-account-signing-key-file=" + c.signingKey,
		"--token-auth-file=" + c.tokens,
		"--authorization-mode=RBAC",
		"--service-cluster-ip-range=10.0.0.0/24",
		"--endpoint-reconciler-type=none", // several servers on one address would conflict
		"--disable-admission-plugins=ServiceAccount",
	}, flags...)...)

	config := &rest.Config{
		Host: s.URL, BearerToken: c.admin, QPS: -1,
		TLSClientConfig: rest.TLSClientConfig{CAFile: b.ca.File},
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		b.t.Fatal(err)
	}
	s.Client, s.rest = client, client.Discovery().RESTClient()
	s.kubeconfig = b.Write(name+".kubeconfig", fmt.Sprintf(kubeconfig, s.URL, b.ca.File, c.admin))
	return s
}

const kubeconfig = `apiVersion: v1
kind: Config
clusters:
- name: testbed
  cluster:
    server: %s
    certificate-authority: %s
users:
- name: admin
  user:
    token: %s
contexts:
- name: testbed
  context:
    cluster: testbed
    user: admin
current-context: testbed
`

// NewCredentials creates the credentials that the API servers of one cluster share.
func (b *Bed) NewCredentials() *Credentials {
	b.t.Helper()
	const admin = "testbed-admin"
	return &Credentials{
		admin:      admin,
		signingKey: b.Write("service-accounts.key", b.keyText(b.newKey())),
		tokens:     b.Write("tokens.csv", admin+",admin,admin,system:masters\n"),
	}
}

// OnHost gives the server a host of its own in two respects: a hostname, from which it
// derives its identity, and a directory, which it sees at another path. So several servers
// can have the same EncryptionConfiguration. Call it once, before the first start. It needs
// user namespaces.
func (s *APIServer) OnHost(name, dir, seenAt string) {
	s.Args = append([]string{
		"--user", "--map-root-user", "--uts", "--mount", "/bin/sh", "-euc",
		`hostname "$0"; mount --bind "$1" "$2"; shift 2; exec "$@"`, name, dir, seenAt, s.path,
	}, s.Args...)
	s.path = "/usr/bin/unshare"
}

// Page requests a path such as /readyz/kms-providers, which may have a query, and returns the body. For any
// status but 200 it returns an error that includes the body.
func (s *APIServer) Page(ctx context.Context, path string) (string, error) {
	body, err := s.rest.Get().RequestURI(path).Do(ctx).Raw()
	if err != nil {
		return "", fmt.Errorf("%s of %s: %w: %s", path, s.Name, err, body)
	}
	return string(body), nil
}

// AwaitPage waits until a path answers 200, and returns how long that took.
func (s *APIServer) AwaitPage(path string) time.Duration {
	s.bed.t.Helper()
	return s.bed.Await(apiServerWithin, s.Name+"'s "+path, func(ctx context.Context) error {
		_, err := s.Page(ctx, path)
		return err
	})
}

// AwaitLive waits until the server answers, whether or not its KMS plugin is
// healthy.
func (s *APIServer) AwaitLive() time.Duration { s.bed.t.Helper(); return s.AwaitPage("/livez") }

// AwaitReady waits until the server and its KMS plugin are healthy.
func (s *APIServer) AwaitReady() time.Duration { s.bed.t.Helper(); return s.AwaitPage("/readyz") }

// Restart stops the server, starts it again and waits until it is ready.
func (s *APIServer) Restart() {
	s.bed.t.Helper()
	s.Stop()
	s.Start()
	s.AwaitReady()
}

// Kubectl runs kubectl as an administrator and returns its output.
func (s *APIServer) Kubectl(args ...string) string {
	s.bed.t.Helper()
	return s.KubectlWithInput("", args...)
}

// KubectlWithInput is Kubectl with text on standard input.
func (s *APIServer) KubectlWithInput(stdin string, args ...string) string {
	s.bed.t.Helper()
	out, err := s.TryKubectl(s.bed.t.Context(), stdin, args...)
	if err != nil {
		s.bed.t.Fatal(err)
	}
	return out
}

// TryKubectl is KubectlWithInput that returns an error instead of failing the test.
func (s *APIServer) TryKubectl(ctx context.Context, stdin string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, s.bed.tool("kubectl"), args...)
	cmd.Env = s.bed.environment("KUBECONFIG=" + s.kubeconfig)
	cmd.Stdin = strings.NewReader(stdin)
	return s.bed.command(cmd)
}
