// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/trousseau-io/trousseau/internal/ctl/fleet"
	"github.com/trousseau-io/trousseau/internal/testkit/clustertest"
)

// cluster KUBECONFIG ADDR,... OPS... starts a cluster whose API servers have these
// addresses, and one node with a pod of trousseau for each OPS: node1 at 10.0.0.1 and so
// on. It writes KUBECONFIG, with the context story.
func cmdCluster(ts *testscript.TestScript, neg bool, args []string) {
	s := clustertest.State{APIServers: strings.Split(args[1], ","), Ops: make(map[string]string)}
	for i, ops := range args[2:] {
		pod := fmt.Sprintf("trousseau-%d", i+1)
		s.Pods = append(s.Pods, clustertest.Pod(pod, fmt.Sprintf("node%d", i+1), fmt.Sprintf("10.0.0.%d", i+1), fleet.DefaultAddr))
		s.Ops[pod] = ops
	}
	api := clustertest.New(s)
	ts.Defer(api.Close)
	ts.Check(api.WriteKubeconfig(ts.MkAbs(args[0]), "story"))
}
