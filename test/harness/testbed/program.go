// SPDX-License-Identifier: Apache-2.0

package testbed

import (
	"context"
	"net"
	"os"
	"strconv"
	"time"

	"k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2"

	"github.com/trousseau-io/trousseau/test/harness/pages"
)

// NewServer prepares any program that a test provides. The caller starts it.
func (b *Bed) NewServer(name, path string, args ...string) *Server {
	return b.newServer(name, path, args...)
}

// Tool returns the path of a program built by test/tools/build, such as vault.
func (b *Bed) Tool(name string) string { return b.tool(name) }

// FreePort reserves an unused port of the loopback interface until the end of the
// test.
func (b *Bed) FreePort() int {
	b.t.Helper()
	_, text, err := net.SplitHostPort(b.freeAddr())
	if err != nil {
		b.t.Fatal(err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		b.t.Fatal(err)
	}
	return port
}

// ExitCode returns the exit code of the last run. It is -1 if a signal ended it,
// while it runs, and before the first start.
func (s *Server) ExitCode() int {
	if s.Running() || s.last() == nil {
		return -1
	}
	return s.last().cmd.ProcessState.ExitCode()
}

// Attach returns a trousseau that already runs with a command line written
// elsewhere. Socket is the socket's path on the host, and ops the address of the ops
// endpoints: host:port, or unix:// and a path.
func (b *Bed) Attach(running *Server, socket, ops string) *Trousseau {
	b.t.Helper()
	p := &Trousseau{Server: running, Socket: socket, bed: b, ops: pages.New(ops), OpsAddr: ops}
	b.Await(time.Minute, p.Name+"'s socket", func(context.Context) error {
		_, err := os.Stat(socket)
		return err
	})
	var err error
	if p.KMS, err = kmsv2.NewGRPCService(b.ctx, "unix://"+socket, p.Name, kmsTimeout); err != nil {
		b.t.Fatal(err)
	}
	return p
}

// Kubeconfig returns a file with administrator credentials for kubectl and other
// clients.
func (s *APIServer) Kubeconfig() string { return s.kubeconfig }

// AdminEnvironment returns the environment in which the vault command is an
// administrator at the given address of Vault.
func (v *Vault) AdminEnvironment(address string) []string {
	return v.environment(address, v.root)
}

// MustNotHaveLogged fails the test if a server has logged one of the cluster's
// secrets. Servers that run the trousseau binary itself are always checked.
func (c *Cluster) MustNotHaveLogged(servers ...*Server) {
	c.t.Helper()
	for _, s := range servers {
		s.mustNotHaveLogged(c.secrets)
	}
}
