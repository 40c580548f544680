// SPDX-License-Identifier: Apache-2.0

package testbed

import (
	"net"
	"path/filepath"
)

// NewControllerManager prepares a kube-controller-manager that uses the first API
// server, with the flags of kubeadm where they matter here: all controllers, each
// with its own ServiceAccount, and leader election. The caller starts it. Additional
// flags come last.
func (c *Cluster) NewControllerManager(flags ...string) *Server {
	c.t.Helper()
	api := c.Nodes[0].APIServer
	host, port, err := net.SplitHostPort(c.freeAddr())
	if err != nil {
		c.t.Fatal(err)
	}
	return c.newServer("controllers", c.tool("kube-controller-manager"), append([]string{
		"--kubeconfig=" + api.kubeconfig, "--authentication-kubeconfig=" + api.kubeconfig, "--authorization-kubeconfig=" + api.kubeconfig,
		"--bind-address=" + host, "--secure-port=" + port, "--cert-dir=" + filepath.Join(c.Dir, "controllers.certs"),
		"--service-account-private-key-file=" + c.credentials.signingKey, "--root-ca-file=" + c.ca.File,
		"--use-service-account-credentials=true", "--leader-elect=true",
	}, flags...)...)
}
