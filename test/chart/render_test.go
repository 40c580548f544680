// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// The chart renders with each set of values. Helm 3 and Helm 4 render the same, and
// the result is as documented; behaviour at run time is tested by the scenarios.
func TestRender(t *testing.T) {
	for _, s := range sets(t) {
		t.Run(s.name, func(t *testing.T) {
			rendered := parse(t, newHelm(t, "helm4", "").template(namespace, s.flag()))
			mustBeSame(t, parse(t, newHelm(t, "helm3", "").template(namespace, s.flag())), rendered)
			pod := rendered.pod(t)
			mustKeepRunning(t, pod)
			mustSeeChanges(t, pod)
			mustLeaveRoomOnNode(t, pod)
			mustHaveFlags(t, pod)
			switch {
			case s.static() && len(rendered) != 1:
				t.Errorf("%d objects are rendered, want only the pod", len(rendered))
			case s.static():
				mustStandAlone(t, pod)
			case s.installer():
				mustStandAlone(t, pod)
				mustBeInstallable(t, rendered)
			}
			if text, ok := rendered.data("trousseau-config")["config.yaml"]; ok {
				mustBeGood(t, text, rendered.data("trousseau-vault-ca")["vault-ca.pem"])
			}
		})
	}
}

// mustBeSame compares the output of two versions, in any order.
func mustBeSame(t *testing.T, three, four objects) {
	t.Helper()
	if got, want := three.names(), four.names(); !slices.Equal(got, want) {
		t.Errorf("Helm 3 renders %v, Helm 4 renders %v", got, want)
		return
	}
	for _, o := range four {
		got, want := clipped(three.find(o.GetKind(), o.GetName()).Object), clipped(o.Object)
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s %s: Helm 3 renders\n%v\nHelm 4 renders\n%v", o.GetKind(), o.GetName(), got, want)
		}
	}
}

// clipped removes newlines at the end of texts: Helm 3 removes the last newline of a
// document, and so of a text at its end.
func clipped(value any) any {
	switch value := value.(type) {
	case string:
		return strings.TrimRight(value, "\n")
	case []any:
		all := make([]any, len(value))
		for i, v := range value {
			all[i] = clipped(v)
		}
		return all
	case map[string]any:
		all := make(map[string]any, len(value))
		for k, v := range value {
			all[k] = clipped(v)
		}
		return all
	default:
		return value
	}
}

// A cluster that is too old is refused: it would wait for the agent to end before it
// starts Trousseau.
func TestOldCluster(t *testing.T) {
	eachHelm(t, func(t *testing.T, h helm) {
		_, err := h.try("template", release, chartDir, "--kube-version=1.28.15", "--values=testdata/values/agent.yaml")
		if err == nil || !strings.Contains(err.Error(), "chart requires kubeVersion: >=1.29") {
			t.Errorf("Kubernetes 1.28: %v, want it refused", err)
		}
	})
}

// mustKeepRunning checks settings that would end a container or prevent its start.
func mustKeepRunning(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	for _, c := range pod.Spec.InitContainers {
		// An agent that exits after the first rendering never delivers a new token.
		if c.RestartPolicy == nil || *c.RestartPolicy != corev1.ContainerRestartPolicyAlways {
			t.Errorf("init container %s: restartPolicy %v, want Always", c.Name, c.RestartPolicy)
		}
	}
	for _, c := range pod.Spec.Containers {
		if c.Name != "trousseau" {
			continue
		}
		// They ask this process, and stay good while Vault is away.
		mustAsk(t, c, "liveness", c.LivenessProbe, "livez")
		mustAsk(t, c, "readiness", c.ReadinessProbe, "startupz")
		return
	}
	t.Error("missing container trousseau")
}

// mustAsk checks that a probe asks the process of its own container for a page.
func mustAsk(t *testing.T, c corev1.Container, kind string, probe *corev1.Probe, page string) {
	t.Helper()
	address := ""
	for _, arg := range c.Args {
		if found, ok := strings.CutPrefix(arg, "--health-addr="); ok {
			address = found
		}
	}
	want := []string{"/trousseau", "health", "--addr=" + address, page}
	if address == "" || probe == nil || probe.Exec == nil || !slices.Equal(probe.Exec.Command, want) {
		t.Errorf("%s probe %+v, want it to run %q", kind, probe, want)
	}
}

// mustSeeChanges checks for mounts that are never updated, and for tokens on a disk.
func mustSeeChanges(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	for _, c := range append(pod.Spec.InitContainers, pod.Spec.Containers...) {
		for _, m := range c.VolumeMounts {
			if m.SubPath != "" || m.SubPathExpr != "" {
				t.Errorf("container %s mounts %s with a subPath", c.Name, m.MountPath)
			}
		}
	}
	for _, v := range pod.Spec.Volumes {
		if v.EmptyDir != nil && v.EmptyDir.Medium != corev1.StorageMediumMemory {
			t.Errorf("volume %s is on disk", v.Name)
		}
	}
}

// mustLeaveRoomOnNode checks for declared ports: with hostNetwork, the scheduler
// does not place a second pod on a node whose port is declared.
func mustLeaveRoomOnNode(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	for _, c := range append(pod.Spec.InitContainers, pod.Spec.Containers...) {
		if len(c.Ports) > 0 {
			t.Errorf("container %s declares ports", c.Name)
		}
	}
}

// mustHaveFlags lets the binary parse the flags; --version makes it exit.
func mustHaveFlags(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	for _, c := range pod.Spec.Containers {
		out, err := exec.CommandContext(t.Context(), binary(t), append(c.Args, "--version")...).CombinedOutput()
		if err != nil {
			t.Errorf("trousseau %s: %v: %s", strings.Join(c.Args, " "), err, out)
		}
	}
}

// mustStandAlone checks that a static pod needs no API server.
func mustStandAlone(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	if pod.Spec.ServiceAccountName != "" || len(pod.Spec.ImagePullSecrets) > 0 {
		t.Error("the static pod refers to a ServiceAccount or Secret")
	}
	for _, v := range pod.Spec.Volumes {
		if v.ConfigMap != nil || v.Secret != nil || v.Projected != nil || v.PersistentVolumeClaim != nil {
			t.Errorf("volume %s of the static pod refers to an object", v.Name)
		}
	}
}

// mustBeGood runs trousseau check-config on a rendered config.yaml, with paths
// adapted to this machine.
func mustBeGood(t *testing.T, config, ca string) {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{"vault-ca.pem": ca, "secret-id": "a-secret-id\n", "token": "a.service.token\n", "config.yaml": ""} {
		if name == "config.yaml" {
			content = strings.NewReplacer("/etc/vault-ca", dir, "/etc/trousseau-credentials", dir, "/var/run/secrets/trousseau", dir).Replace(config)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.CommandContext(t.Context(), binary(t), "check-config", filepath.Join(dir, "config.yaml")).CombinedOutput()
	if err != nil {
		t.Errorf("check-config: %v: %s\nof\n%s", err, out, config)
	}
}
