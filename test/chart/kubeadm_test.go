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
	"sigs.k8s.io/yaml"

	"github.com/trousseau-io/trousseau/internal/testkit/documented"
)

// An operator can give kubeadm a configuration, or edit the manifest that kubeadm wrote
// without it. docs/install.md shows both: kubeadm itself must make of the one what the
// other says, because `kubeadm upgrade` writes the manifest again.
func TestKubeadm(t *testing.T) {
	files, err := documented.Files("../..")
	if err != nil {
		t.Fatal(err)
	}
	const version = "\nkubernetesVersion: v" + kubeVersion + "\n"
	plain := kubeadm(t, "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration"+version)
	got := kubeadm(t, files["kubeadm.yaml"]+version)

	var edit corev1.Pod
	if err := yaml.UnmarshalStrict([]byte(files["kube-apiserver.yaml"]), &edit); err != nil {
		t.Fatal(err)
	}
	want := plain.DeepCopy()
	to, from := &want.Spec.Containers[0], edit.Spec.Containers[0]
	to.Command = append(to.Command, from.Command[1:]...) // without the program
	to.VolumeMounts = append(to.VolumeMounts, from.VolumeMounts...)
	want.Spec.Volumes = append(want.Spec.Volumes, edit.Spec.Volumes...)
	for _, pod := range []*corev1.Pod{got, want} {
		slices.Sort(pod.Spec.Containers[0].Command)
		slices.SortFunc(pod.Spec.Containers[0].VolumeMounts, func(a, b corev1.VolumeMount) int { return strings.Compare(a.Name, b.Name) })
		slices.SortFunc(pod.Spec.Volumes, func(a, b corev1.Volume) int { return strings.Compare(a.Name, b.Name) })
	}
	if !reflect.DeepEqual(got, want) {
		a, _ := yaml.Marshal(got)
		b, _ := yaml.Marshal(want)
		t.Errorf("kubeadm's manifest is\n%s\nthe edited one is\n%s", a, b)
	}
}

// kubeadm returns the manifest for kube-apiserver that kubeadm writes. It skips the
// test unless the directory with Helm has kubeadm too.
func kubeadm(t *testing.T, configuration string) *corev1.Pod {
	t.Helper()
	program := filepath.Join(os.Getenv(helmVariable), "kubeadm")
	if _, err := os.Stat(program); err != nil {
		t.Skipf("%v; run `make chart-test`", err)
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "kubeadm.yaml")
	if err := os.WriteFile(config, []byte(configuration), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, "init", "phase", "control-plane", "apiserver", "--config="+config, "--dry-run")
	cmd.Env = []string{"KUBEADM_INIT_DRYRUN_DIR=" + dir}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	pod := readPod(t, filepath.Join(dir, "kube-apiserver.yaml"))
	return &pod
}
