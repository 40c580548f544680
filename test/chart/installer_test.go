// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// mustBeInstallable checks the installer and what it installs.
func mustBeInstallable(t *testing.T, rendered objects) {
	t.Helper()
	pod := rendered.created(t, installer)
	file := filepath.Join(t.TempDir(), "manifest.yaml")
	if err := os.WriteFile(file, []byte(rendered.manifest(t)), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), trousseauctl(t), "keep-static-pod", "--check", "--manifest="+file).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}

	// Neither a right nor a token.
	if pod.Spec.ServiceAccountName != "" || pod.Spec.AutomountServiceAccountToken == nil || *pod.Spec.AutomountServiceAccountToken {
		t.Error("the installer has a ServiceAccount's token")
	}
	for _, kind := range []string{"ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"} {
		for _, o := range rendered {
			if o.GetKind() == kind {
				t.Errorf("%s %s is rendered", kind, o.GetName())
			}
		}
	}

	// Its DaemonSet never takes a static pod for one of its own, which Prometheus and the
	// network do.
	selected := func(kind, name string, path ...string) bool {
		labels, _, _ := unstructured.NestedStringMap(rendered.find(kind, name).Object, path...)
		static := rendered.pod(t).Labels
		if len(labels) == 0 {
			t.Errorf("%s %s selects everything", kind, name)
		}
		return !slices.ContainsFunc(slices.Collect(maps.Keys(labels)), func(k string) bool { return labels[k] != static[k] })
	}
	if selected("DaemonSet", installer, "spec", "selector", "matchLabels") {
		t.Error("the DaemonSet selects the static pods")
	}
	if rendered.find("PodMonitor", release) != nil {
		if !selected("PodMonitor", release, "spec", "selector", "matchLabels") {
			t.Error("the PodMonitor does not select the static pods")
		}
		if !selected("NetworkPolicy", release, "spec", "podSelector", "matchLabels") {
			t.Error("the NetworkPolicy does not select the static pods")
		}
	}

	// The static pod reads what the installer writes.
	for _, v := range rendered.pod(t).Spec.Volumes {
		if v.Name != "node-credentials" || !slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Secret != nil }) {
			continue
		}
		if want := "/etc/kubernetes/trousseau.d/kube-system.trousseau/credentials"; v.HostPath.Path != want {
			t.Errorf("the static pod reads %s, the installer writes %s", v.HostPath.Path, want)
		}
	}
}

// A revision changes with everything that the static pod is made of, and with nothing
// else, so a static pod is replaced only if it has to be.
func TestRevisions(t *testing.T) {
	eachHelm(t, func(t *testing.T, h helm) {
		for _, tc := range []struct {
			name, change string
			want         bool
		}{
			{"nothing", "{}", false},
			{"flag", "log: {level: debug}", true},
			{"Vault's address", "vault: {address: https://other.example}", true},
			{"config.yaml", "config: {login: {authPath: other}}", true},
			{"image", "image: {pullPolicy: Always}", true},
			{"chart", newChart, false},
			{"resources of the installer", "installer: {resources: {limits: {memory: 1Gi}}}", false},
			{"removal", "installer: {remove: true}", false},
			{"monitoring", "prometheusRule: {enabled: false}", false},
			{"what looks like a placeholder", "podAnnotations: {revision: REVISION}", true},
			{"a carriage return", "podAnnotations: {text: \"a\\r\\nb \\n\\n c\"}", true},
		} {
			values := []string{"--values=testdata/values/installer-secret.yaml", "--set=image.tag=v1"}
			before := parse(t, h.template(namespace, values...)).pod(t)
			h := h
			if tc.change == newChart {
				h.chart, tc.change = bumped(t), "{}"
			}
			rendered := parse(t, h.template(namespace, append(values, write(t, tc.change))...))
			mustBeInstallable(t, rendered)
			after := rendered.pod(t)
			if got := before.Name != after.Name; got != tc.want {
				t.Errorf("%s: another revision: %t, want %t", tc.name, got, tc.want)
			}
			if got := !reflect.DeepEqual(before, after); got != tc.want {
				t.Errorf("%s: another pod: %t, want %t", tc.name, got, tc.want)
			}
			if !strings.HasPrefix(after.Name, release+"-") {
				t.Errorf("%s: the static pod is named %s", tc.name, after.Name)
			}
		}
	})
}
