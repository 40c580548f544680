// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"slices"
	"strings"
	"testing"

	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// An operator installs a release, upgrades it to other values, upgrades it with a
// single change, rolls it back and uninstalls it: with each Helm version, and with
// Helm 4 after Helm 3. After every step the cluster has exactly the rendered
// objects, and nothing at the end.
func TestRelease(t *testing.T) {
	bed := testbed.New(t, &report, "3 helm install to uninstall")
	newHelm(t, "helm4", "")
	api, chart := startAPIServer(t, bed), chartDir
	for _, tc := range []struct{ first, then string }{
		{"helm3", "helm3"},
		{"helm4", "helm4"},
		{"helm3", "helm4"},
	} {
		t.Run(tc.first+" then "+tc.then, func(t *testing.T) {
			first, then := newHelm(t, tc.first, api.Kubeconfig()), newHelm(t, tc.then, api.Kubeconfig())
			const everything, login = "--values=testdata/values/agent-everything.yaml", "--values=testdata/values/login.yaml"
			into := []string{release, chart, "--namespace=" + namespace}

			notes := first.run(append([]string{"install", everything}, into...)...)
			mustBeStored(t, api, "installed", parse(t, then.template(namespace, everything)))
			mustSayNext(t, notes)

			then.run(append([]string{"upgrade", login}, into...)...)
			mustBeStored(t, api, "upgraded", parse(t, then.template(namespace, login)))
			if got := logLevel(api); got != "--log-level=info" {
				t.Errorf("upgraded: the DaemonSet has %s, want --log-level=info", got)
			}

			then.run(append([]string{"upgrade", "--reset-then-reuse-values", "--set=log.level=debug"}, into...)...)
			mustBeStored(t, api, "upgraded to one change", parse(t, then.template(namespace, login)))
			if got := logLevel(api); got != "--log-level=debug" {
				t.Errorf("upgraded to one change: the DaemonSet has %s, want --log-level=debug", got)
			}

			then.run("rollback", release, "1", "--namespace="+namespace)
			mustBeStored(t, api, "rolled back", parse(t, then.template(namespace, everything)))

			// All nodes would be without Trousseau for a while.
			_, err := then.try(append([]string{"upgrade", "--values=testdata/values/installer-secret.yaml"}, into...)...)
			if err == nil || !strings.Contains(err.Error(), "mode: Helm would remove this release's DaemonSet from all nodes before the static pods serve; install another release") {
				t.Errorf("from a DaemonSet to an installer: %v, want it refused", err)
			}

			// A static pod is no object that Helm could keep: only `helm template` renders it.
			_, err = then.try(append([]string{"upgrade", "--values=testdata/values/static-login-cert.yaml"}, into...)...)
			mustRefuseStaticPod(t, err)

			then.run("uninstall", release, "--namespace="+namespace)
			for _, dry := range []string{"--dry-run=server", "--replace"} {
				_, err := then.try(append([]string{"install", dry, "--values=testdata/values/static-login-cert.yaml"}, into...)...)
				mustRefuseStaticPod(t, err)
			}
			if left := append(stored(api, ours), stored(api, "owner=helm")...); len(left) > 0 {
				t.Errorf("uninstalled: %v are left", left)
			}
		})
	}
	if t.Failed() {
		return
	}
	bed.Observe("installed, upgraded twice, rolled back and uninstalled with %v and from Helm 3 to Helm 4: nothing is left", helmVersions)
}

func mustRefuseStaticPod(t *testing.T, err error) {
	t.Helper()
	const want = "mode: staticPod is for `helm template`, because it creates nothing that Helm could keep; with `helm install`, use mode=installer"
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("a static pod: %v, want %q", err, want)
	}
}

// ours is the label of all objects of the chart. Helm's release records have another
// label.
const ours = "app.kubernetes.io/instance=" + release

// mustBeStored compares the objects in the API server with the rendered ones.
func mustBeStored(t *testing.T, api *testbed.APIServer, when string, rendered objects) {
	t.Helper()
	if got, want := stored(api, ours), rendered.names(); !slices.Equal(got, want) {
		t.Errorf("%s: the cluster has\n%v\nwant\n%v", when, got, want)
	}
}

// logLevel returns the --log-level flag of the stored DaemonSet.
func logLevel(api *testbed.APIServer) string {
	for arg := range strings.FieldsSeq(api.Kubectl("get", "daemonset", release, "--namespace="+namespace,
		"-o", `jsonpath={range .spec.template.spec.containers[0].args[*]}{@}{"\n"}{end}`)) {
		if strings.HasPrefix(arg, "--log-level=") {
			return arg
		}
	}
	return "no --log-level"
}

// mustSayNext checks the notes that Helm prints.
func mustSayNext(t *testing.T, notes string) {
	t.Helper()
	for _, want := range []string{
		"kubectl -n kube-system get daemonset trousseau",
		"kubectl -n kube-system rollout status daemonset/trousseau",
		"helm test trousseau --namespace kube-system || kubectl -n kube-system logs trousseau-test",
		"bound_service_account_names=vault-client",
		"bound_service_account_namespaces=kube-system",
		"audience=https://vault.example",
		"unix:///var/lib/trousseau/run/kms.sock",
		"kubectl get --raw /readyz/kms-providers",
	} {
		if !strings.Contains(notes, want) {
			t.Errorf("the notes do not contain %s:\n%s", want, notes)
		}
	}
}
