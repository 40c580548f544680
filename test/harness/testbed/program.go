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

// NewServer prepares any program, for the caller to start: one that a test brings
// itself.
func (b *Bed) NewServer(name, path string, args ...string) *Server {
	return b.newServer(name, path, args...)
}

// Tool is the path of a program that test/tools/build has built, such as vault.
func (b *Bed) Tool(name string) string { return b.tool(name) }

// FreePort finds a port of the loopback interface where nobody listens, and which
// is still free later.
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

// ExitCode is how the last run has ended; -1 if a signal has ended it, before the
// end and before the first start.
func (s *Server) ExitCode() int {
	if s.Running() || s.last() == nil {
		return -1
	}
	return s.last().cmd.ProcessState.ExitCode()
}

// Attach returns a trousseau that runs already, because something else has
// written its command line: the socket's path, and host:port of the operator's
// pages, are those of the host.
func (b *Bed) Attach(running *Server, socket, ops string) *Trousseau {
	b.t.Helper()
	p := &Trousseau{Server: running, Socket: socket, bed: b, ops: pages.New(ops)}
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

// Kubeconfig is a file with which kubectl and the like are the administrator.
func (s *APIServer) Kubeconfig() string { return s.kubeconfig }

// AdminEnvironment is what the vault command needs to be the administrator, at an
// address of the Vault.
func (v *Vault) AdminEnvironment(address string) []string {
	return v.environment(address, v.root)
}

// MustNotHaveLogged fails the test if a server has logged one of the cluster's
// secrets. Those that run the trousseau binary itself are looked at anyway.
func (c *Cluster) MustNotHaveLogged(servers ...*Server) {
	c.t.Helper()
	for _, s := range servers {
		s.mustNotHaveLogged(c.secrets)
	}
}
