// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/trousseau-io/trousseau/test/chart/kubelet"
	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// step matches a command in docs/quickstart.md: a fenced block after a line <!--
// step: NAME -->, indented as part of a list.
var step = regexp.MustCompile("(?ms)^   <!-- step: (\\S+) -->\n   ```sh\n(.*?)^   ```$")

// registryVariable names a registry on loopback to which `make publish` has pushed
// this checkout's image and chart: `make release-test` does. Without one, the chart is
// the checkout's, and the image has the binaries under test.
const registryVariable = "TROUSSEAU_REGISTRY"

// A new user pastes the commands of the quick install one after another, from an
// empty Vault to an encrypted Secret. Only file paths differ, and the test's kubelet
// runs Trousseau's pod, and the API server with the flags in its manifest.
func TestQuickInstall(t *testing.T) {
	s := newBareStage(t, "9 quick install")
	api := s.node.APIServer
	api.AwaitLive()
	text, err := os.ReadFile("../../docs/quickstart.md")
	if err != nil {
		t.Fatal(err)
	}
	steps := step.FindAllStringSubmatch(string(text), -1)
	if n := len(steps); n == 0 || n >= 10 {
		t.Fatalf("%d commands, want one to nine", n)
	}
	kubernetes := filepath.Join(s.Dir, "kubernetes")
	manifest := filepath.Join("kubernetes", "manifests", "kube-apiserver.yaml")
	original, err := os.ReadFile("testdata/kube-apiserver.yaml")
	if err != nil {
		t.Fatal(err)
	}
	s.Write(manifest, string(original))
	chart := `"oci://$REGISTRY/charts/trousseau" --version "$(test/release/version | cut -c2-)"`
	installed, registry := "charts/trousseau", os.Getenv(registryVariable)
	if registry != "" {
		installed = chart + " --plain-http"
		s.useTheChartsImage()
	}
	here := strings.NewReplacer("sudo ", "", "/etc/kubernetes", kubernetes, "unix:///run/trousseau", "unix://"+s.node.Dir+"/run",
		chart, installed, "helm install trousseau", strings.Join(append([]string{"helm install trousseau"}, s.with("{}")...), " "))

	began := time.Now()
	var pod *kubelet.Pod
	var trousseau *testbed.Trousseau
	for _, block := range steps {
		name, command := block[1], here.Replace(strings.ReplaceAll("\n"+block[2], "\n   ", "\n"))
		switch name {
		case "clone": // this is the clone, and the registry has what it publishes
			continue
		case "secret":
			s.restartAsWritten(manifest)
			api.AwaitPage("/readyz/kms-providers")
		}
		s.paste(name, command)
		if name == "install" {
			pod = s.schedule("trousseau-quick")
			trousseau = s.attach(pod)
			s.mustBeHealthy(pod, trousseau)
		}
	}
	if trousseau == nil {
		t.Fatal("no command installs the chart")
	}
	object, err := testbed.Decode(s.Etcd.Stored("default", "hello"))
	if err != nil {
		t.Fatal(err)
	}
	if object.GetKeyID() != trousseau.KeyID() {
		t.Errorf("the Secret is under %q in etcd, want %q", object.GetKeyID(), trousseau.KeyID())
	}
	if got := api.Kubectl("get", "secret", "hello", "-o", "jsonpath={.data.who}"); got != "d29ybGQ=" {
		t.Errorf("the Secret reads %q", got)
	}
	s.mustBeSound(pod, filepath.Join(kubernetes, "encryption"), "encryption-identity")
	if registry != "" {
		s.Observe("image and chart are from the registry %s", registry)
	}
	s.Observe("%d commands and %s from an empty Vault to a Secret under %s", len(steps), time.Since(began).Round(time.Second), object.GetKeyID())
}

// paste runs a command in the user's shell.
func (s *stage) paste(name, command string) {
	s.t.Helper()
	cmd := exec.CommandContext(s.t.Context(), "/bin/sh", "-c", command)
	cmd.Dir = "../.."
	cmd.Env = append(s.Vault.AdminEnvironment("https://"+s.Proxy.Addr), "KUBECONFIG="+s.node.APIServer.Kubeconfig(),
		"PATH="+s.path()+":/usr/bin:/bin", "HOME="+s.Dir, "REGISTRY="+os.Getenv(registryVariable))
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Fatalf("the command %q: %v\n%s\n%s", name, err, command, out)
	}
	s.t.Logf("%s:\n%s", name, out)
}

// useTheChartsImage leaves the image to the chart, and the pull to the node.
func (s *stage) useTheChartsImage() {
	s.t.Helper()
	file := filepath.Join(s.Dir, "values.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		s.t.Fatal(err)
	}
	s.Write(file, strings.Replace(string(text), localImage, "", 1))
	s.kubelet.Pull = s.pull
}

// pull gets an image from a registry on loopback, with the programs in it.
func (s *stage) pull(name string) (kubelet.Image, error) {
	dir := filepath.Join(s.Dir, "image")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return kubelet.Image{}, err
	}
	cmd := exec.CommandContext(s.t.Context(), "/bin/sh", "-c", `crane export "$1" - | tar -xC "$2"`, "pull", name, dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		return kubelet.Image{}, fmt.Errorf("pulling %s: %w: %s", name, err, out)
	}
	return kubelet.Image{
		Binary: filepath.Join(dir, "trousseau"), Path: "/trousseau", Entrypoint: []string{"/trousseau"},
		Others: map[string]string{"/trousseauctl": filepath.Join(dir, "trousseauctl")},
	}, nil
}

// path returns a directory with the user's tools.
func (s *stage) path() string {
	s.t.Helper()
	dir := filepath.Join(s.Dir, "bin")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		s.t.Fatal(err)
	}
	for name, file := range map[string]string{"vault": s.Tool("vault"), "kubectl": s.Tool("kubectl"), "helm": s.helm.path} {
		if err := os.Symlink(file, filepath.Join(dir, name)); err != nil && !os.IsExist(err) {
			s.t.Fatal(err)
		}
	}
	return dir
}

// restartAsWritten restarts the API server with the changes in its manifest, as
// kubelet would.
func (s *stage) restartAsWritten(manifest string) {
	s.t.Helper()
	before, after := readPod(s.t, "testdata/kube-apiserver.yaml"), readPod(s.t, filepath.Join(s.Dir, manifest))
	mounted := make(map[string]string) // by path in the container
	for _, m := range after.Spec.Containers[0].VolumeMounts {
		i := slices.IndexFunc(after.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == m.Name })
		if i < 0 {
			s.t.Fatalf("the API server's manifest has no volume %s", m.Name)
		}
		mounted[m.MountPath] = after.Spec.Volumes[i].HostPath.Path
	}
	if mounted["/run/trousseau"] != "/run/trousseau" {
		s.t.Errorf("/run/trousseau in the API server's container is %q", mounted["/run/trousseau"])
	}
	api := s.node.APIServer
	for _, flag := range after.Spec.Containers[0].Command {
		if slices.Contains(before.Spec.Containers[0].Command, flag) {
			continue
		}
		if file, ok := strings.CutPrefix(flag, "--encryption-provider-config="); ok {
			host, ok := mounted[filepath.Dir(file)]
			if !ok {
				s.t.Fatalf("%s is not in the API server's container", file)
			}
			flag = "--encryption-provider-config=" + filepath.Join(host, filepath.Base(file))
		}
		api.Args = append(api.Args, flag)
	}
	if len(api.Args) == 0 {
		s.t.Fatal(fmt.Errorf("the manifest has not changed"))
	}
	api.Stop()
	api.Start()
}

func readPod(t *testing.T, file string) corev1.Pod {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var pod corev1.Pod
	if err := yaml.UnmarshalStrict(text, &pod); err != nil {
		t.Fatal(err)
	}
	return pod
}
