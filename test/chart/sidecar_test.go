// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"sigs.k8s.io/yaml"

	"github.com/trousseau-io/trousseau/test/chart/kubelet"
)

const tenant = "tenant-a"

// A hosted control plane: kube-apiserver is a pod of the stage's cluster. Patched as
// docs/install.md shows, it has two Trousseaus beside it, with a key for Secrets and
// one for ConfigMaps.
func TestSidecar(t *testing.T) {
	s := newStage(t, "13 sidecar of a hosted kube-apiserver, with two keys")
	policy := ""
	for _, key := range []string{"secrets", "configmaps"} {
		s.Vault.CLI("write", "-f", "transit/keys/tenant-a-"+key)
		policy += strings.ReplaceAll(s.Documented("policy.hcl"), "trousseau-kms-vault", "tenant-a-"+key)
	}
	s.Vault.CLIWithInput(policy, "policy", "write", tenant, "-")
	s.Vault.CLI("write", "auth/kubernetes/role/tenant-a", "bound_service_account_names=tenant-a",
		"bound_service_account_namespaces="+tenant, "token_policies="+tenant, "token_period=24h")
	hosting := s.node.APIServer
	hosting.Kubectl("create", "namespace", tenant)
	hosting.Kubectl("create", "serviceaccount", "tenant-a", "--namespace="+tenant)
	// The ServiceAccount's token reviews itself.
	hosting.Kubectl("create", "clusterrolebinding", "tenant-a", "--clusterrole=system:auth-delegator", "--serviceaccount="+tenant+":tenant-a")

	ca, err := os.ReadFile(s.CAFile())
	if err != nil {
		t.Fatal(err)
	}
	ports := []string{strconv.Itoa(s.FreePort()), strconv.Itoa(s.FreePort())}
	here := strings.NewReplacer("vault.example:8200", s.Proxy.Addr, ":8095", ":"+ports[0], ":8096", ":"+ports[1], "REGISTRY", "registry.example",
		"    -----BEGIN CERTIFICATE-----\n    …\n    -----END CERTIFICATE-----\n", "    "+strings.ReplaceAll(strings.TrimSpace(string(ca)), "\n", "\n    ")+"\n")
	hosting.KubectlWithInput(here.Replace(s.Documented("sidecar-files.yaml")), "apply", "-f", "-")

	hosted := s.NewAPIServer("hosted", s.Etcd, s.NewCredentials(), "--etcd-prefix=/"+tenant,
		"--encryption-provider-config=/etc/trousseau/encryption-config.yaml", "--encryption-provider-config-automatic-reload=true")
	s.kubelet.Images["registry.k8s.io/kube-apiserver"] = kubelet.Image{Binary: s.Tool("kube-apiserver"), Path: "/usr/local/bin/kube-apiserver"}
	pod := hostedPod(s.Dir, hosted.Args)
	patchPod(t, pod, here.Replace(s.Documented("sidecar-patch.yaml")))
	pod, err = hosting.Client.CoreV1().Pods(tenant).Create(t.Context(), pod, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	running := s.run(pod)
	hosted.AwaitReady()
	s.Observe("kube-apiserver and its plugins ready %s after the pod's start", time.Since(began).Round(time.Second))

	hosted.Kubectl("create", "secret", "generic", "hello", "--from-literal=who=world")
	hosted.Kubectl("create", "configmap", "hello", "--from-literal=who=world")
	for _, kind := range []string{"secrets", "configmaps"} {
		key := "/" + tenant + "/" + kind + "/default/hello"
		stored := s.Etcd.List(key)[key]
		if want := "k8s:enc:kms:v2:trousseau-" + kind + ":"; !bytes.HasPrefix(stored, []byte(want)) || !bytes.Contains(stored, []byte("transit/tenant-a-"+kind+"/v1")) {
			t.Errorf("etcd has %.80q under %s, want the provider %s and its key", stored, key, want)
		}
		if got := hosted.Kubectl("get", kind, "hello", "-o", "jsonpath={.data.who}"); got != "d29ybGQ=" && got != "world" {
			t.Errorf("%s reads %q", kind, got)
		}
	}
	page, err := hosted.Page(t.Context(), "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	mustExposeAlerted(t, page)

	for _, c := range append(pod.Spec.InitContainers, pod.Spec.Containers...) {
		s.mustBeConfined(running.Container(c.Name))
		s.MustNotHaveLogged(running.Container(c.Name).Server)
	}
	if err := running.Trouble(); err != nil {
		t.Error(err)
	}
	took, err := running.Terminate(t.Context())
	if err != nil {
		t.Error(err)
	}
	s.Observe("a Secret and a ConfigMap are under different keys; the pod ended %s after SIGTERM", took.Round(time.Millisecond))
}

// hostedPod is a pod of kube-apiserver as a hosting cluster has it, before the patch.
// Dir holds the certificates.
func hostedPod(dir string, args []string) *corev1.Pod {
	user, yes, no, kind := int64(65532), true, false, corev1.HostPathDirectory
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "kube-apiserver-0", Namespace: tenant},
		Spec: corev1.PodSpec{
			NodeName: node, HostNetwork: true, DNSPolicy: corev1.DNSDefault, ServiceAccountName: "tenant-a",
			SecurityContext: &corev1.PodSecurityContext{RunAsUser: &user, RunAsGroup: &user},
			Containers: []corev1.Container{{
				Name: "kube-apiserver", Image: "registry.k8s.io/kube-apiserver:v1.37.2", Command: append([]string{"kube-apiserver"}, args...),
				SecurityContext: &corev1.SecurityContext{
					AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes, Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
				},
				VolumeMounts: []corev1.VolumeMount{{Name: "pki", MountPath: dir}},
			}},
			Volumes: []corev1.Volume{{Name: "pki", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: dir, Type: &kind}}}},
		},
	}
}

// patchPod applies a strategic merge patch, as kubectl and operators do.
func patchPod(t *testing.T, pod *corev1.Pod, patch string) {
	t.Helper()
	asJSON, err := yaml.YAMLToJSONStrict([]byte(patch))
	if err != nil {
		t.Fatal(err)
	}
	before, err := json.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	after, err := strategicpatch.StrategicMergePatch(before, asJSON, corev1.Pod{})
	if err != nil {
		t.Fatal(err)
	}
	*pod = corev1.Pod{}
	if err := yaml.UnmarshalStrict(after, pod); err != nil {
		t.Fatalf("%v in the patched pod:\n%s", err, after)
	}
}

// mustExposeAlerted checks that a kube-apiserver with a KMS plugin has the metrics that
// the chart's alerts use.
func mustExposeAlerted(t *testing.T, page string) {
	t.Helper()
	rules, err := os.ReadFile(chartDir + "/monitoring/rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, name := range regexp.MustCompile(`\bapiserver_\w+`).FindAllString(string(rules), -1) {
		if names[name] {
			continue
		}
		names[name] = true
		if !strings.Contains(page, "\n"+name+"{") {
			t.Errorf("kube-apiserver does not expose %s", name)
		}
	}
	if len(names) == 0 {
		t.Error(fmt.Errorf("the rules use no metric of kube-apiserver"))
	}
}
