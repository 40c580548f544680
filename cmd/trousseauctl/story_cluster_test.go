// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	corev1 "k8s.io/api/core/v1"

	"github.com/trousseau-io/trousseau/internal/ctl/fleet"
	"github.com/trousseau-io/trousseau/internal/testkit/clustertest"
)

// TestFindOr finds the nodes of doctor: pods if there are any,
// and otherwise the addresses.
func TestFindOr(t *testing.T) {
	pods := []corev1.Pod{clustertest.Pod("p", "node1", "10.0.0.1", fleet.DefaultAddr)}
	typed, err := fleet.ParseNodes([]string{fleet.DefaultAddr})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		state clustertest.State
		want  string
	}{
		{clustertest.State{Pods: pods}, "[node1] <nil>"},
		{clustertest.State{}, "[" + fleet.DefaultAddr + "] <nil>"},
		{clustertest.State{Pods: pods, Forbidden: []string{"/pods"}}, "[] listing pods: /pods is forbidden"},
	} {
		f := clusterFlags{kubeconfig: filepath.Join(t.TempDir(), "kubeconfig")}
		if err := clustertest.Start(t, c.state).WriteKubeconfig(f.kubeconfig, "a"); err != nil {
			t.Fatal(err)
		}
		find, err := f.findOr(typed)
		if err != nil {
			t.Fatal(err)
		}
		found, err := find(t.Context())
		if got := fmt.Sprint(found.Nodes, " ", err); got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
}

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
