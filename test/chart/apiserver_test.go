// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// startAPIServer starts an etcd and a kube-apiserver with a cluster's usual
// admission plugins and the CRDs of the Prometheus operator. There are no
// controllers: stored objects do not change.
func startAPIServer(t *testing.T, bed *testbed.Bed) *testbed.APIServer {
	t.Helper()
	api := bed.NewAPIServer("apiserver", bed.StartEtcd(), bed.NewCredentials(), "--enable-admission-plugins=NodeRestriction")
	// The testbed's servers run without it.
	api.Args = slices.DeleteFunc(api.Args, func(arg string) bool { return arg == "--disable-admission-plugins=ServiceAccount" })
	api.Start()
	api.AwaitReady()
	installCRDs(t, api)
	bed.Await(time.Minute, "discovery to list the CRDs", func(ctx context.Context) error {
		_, err := api.TryKubectl(ctx, "", "get", "podmonitors,prometheusrules", "--all-namespaces")
		return err
	})
	return api
}

// stored returns all objects with a label, of any kind, as kind/name.
func stored(api *testbed.APIServer, label string) []string {
	kinds := strings.Fields(api.Kubectl("api-resources", "--verbs=list", "-o", "name"))
	kinds = slices.DeleteFunc(kinds, func(kind string) bool { return kind == "componentstatuses" || strings.HasPrefix(kind, "events") })
	names := strings.Fields(api.Kubectl("get", strings.Join(kinds, ","), "-A", "-l", label, "-o", "name"))
	slices.Sort(names)
	return names
}

// names returns the names of rendered objects as kubectl writes them.
func (o objects) names() []string {
	var names []string
	for _, object := range o {
		kind := strings.ToLower(object.GetKind())
		if group := object.GroupVersionKind().Group; group != "" {
			kind += "." + group
		}
		names = append(names, kind+"/"+object.GetName())
	}
	slices.Sort(names)
	return names
}
