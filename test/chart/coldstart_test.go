// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trousseau-io/trousseau/test/chart/kubelet"
)

// The power fails on all nodes of a cluster with an encrypted Secret, twice. Each time
// the API server is back before Trousseau, which runs as a DaemonSet.
//
// The first time, its pods are still bound to their nodes. While Trousseau is away,
// docs/install.md says what is healthy and what is not, and kube-controller-manager
// ends. Then the kubelets start the pods, and all recovers.
//
// The second time, one pod has failed, as after a graceful shutdown of its node, and
// one is gone. Nothing makes them again, until the operator follows the runbook in
// docs/install.md on one node.
func TestColdStart(t *testing.T) {
	f := newFleet(t, "10 cold start of a DaemonSet", 2)
	api := f.node.APIServer
	f.Vault.CLI("write", "auth/kubernetes/role/trousseau", "bound_service_account_names=trousseau",
		"bound_service_account_namespaces="+namespace, "token_policies=trousseau", "token_ttl=1h")
	f.helmDo("install", "{}")
	f.awaitRollout(release, 3*time.Minute)
	f.encrypt()
	api.Kubectl("create", "secret", "generic", "hello", "--from-literal=who=world")

	f.powerCut()
	f.Etcd.Start()
	api.Start()
	api.AwaitPage("/version")
	serves := time.Now()
	f.controllers.Start()
	helm := f.startHelm()
	f.mustBeHealthyAsDocumented(serves)
	if out := helm(); out != "" {
		t.Errorf("helm list: %s, want it to wait for Secrets that do not come", out)
	}
	f.mustServeAllButSecrets()
	f.mustEndWithoutHealth()
	on := time.Now()
	f.powerOn()
	f.awaitPods()
	f.Observe("pods still bound: Trousseau ready on %d nodes %s after the kubelets started, kube-apiserver after %s", len(f.nodes),
		time.Since(on).Round(time.Second), f.awaitSecret(on))

	f.loseBoundPods()
	f.powerCut()
	f.Etcd.Start()
	api.Start()
	api.AwaitPage("/version")
	f.controllers.Args = append(f.controllers.Args, "--leader-elect=false") // or it would wait for its lease again
	f.controllers.Start()
	f.powerOn()
	f.mustEndWithoutHealth()
	for _, n := range f.nodes {
		if pods := n.Pods(); len(pods) > 0 {
			t.Errorf("%s runs %s, want nothing that makes a pod again", n.Name, pods[0].Name)
		}
	}
	began := time.Now()
	f.runbook("node1")
	secret := f.awaitSecret(began)
	f.controllers.Start() // as a kubelet does, with a backoff of up to five minutes
	f.awaitRollout(release, 3*time.Minute)
	f.awaitPods()
	f.Observe("pods gone or failed: the Secret could be read %s after the runbook's command on one node, the DaemonSet was complete after %s", secret,
		time.Since(began).Round(time.Second))
}

// health matches a row of the table in docs/install.md.
var health = regexp.MustCompile("(?m)^\\| `(/\\S+)` \\| (at once|after 60 s|no) \\|")

// mustBeHealthyAsDocumented compares the API server's health checks with the table in
// docs/install.md, which counts from when the API server serves.
func (f *fleet) mustBeHealthyAsDocumented(serves time.Time) {
	f.t.Helper()
	text, err := os.ReadFile("../../docs/install.md")
	if err != nil {
		f.t.Fatal(err)
	}
	documented := make(map[string]string)
	for _, row := range health.FindAllStringSubmatch(string(text), -1) {
		documented[row[1]] = row[2]
	}
	if len(documented) < 5 {
		f.t.Fatalf("docs/install.md has %d checks, want at least five", len(documented))
	}
	pending := 0 // checks that are to become good
	for _, want := range documented {
		if want != "no" {
			pending++
		}
	}
	good := make(map[string]time.Duration)
	for last := serves; len(good) < pending && time.Since(serves) < 90*time.Second || time.Since(last) < 3*time.Second; time.Sleep(200 * time.Millisecond) {
		for check := range documented {
			if _, known := good[check]; known {
				continue
			}
			if _, err := f.node.APIServer.Page(f.t.Context(), check); err == nil {
				last = time.Now()
				good[check] = last.Sub(serves)
			}
		}
	}
	for check, want := range documented {
		got := "no"
		after, ok := good[check]
		switch {
		case ok && after < 15*time.Second:
			got = "at once"
		case ok && after > 50*time.Second:
			got = "after 60 s"
		case ok:
			got = "after " + after.String()
		}
		if got != want {
			f.t.Errorf("%s is good: %s (%s), documented: %s", check, got, after, want)
		}
		f.Observe("without Trousseau: %s good: %s (%s)", check, got, after.Round(time.Second))
	}
}

// startHelm asks Helm for its releases, which are Secrets. The returned function ends
// Helm, and returns its answer if it has given one.
func (f *fleet) startHelm() func() string {
	f.t.Helper()
	ctx, cancel := context.WithCancel(f.t.Context())
	list := exec.CommandContext(ctx, f.helm.path, "list", "--namespace="+namespace)
	list.Env = []string{"HOME=" + f.t.TempDir(), "KUBECONFIG=" + f.helm.kubeconfig}
	var out bytes.Buffer
	list.Stdout = &out
	if err := list.Start(); err != nil {
		f.t.Fatal(err)
	}
	return func() string {
		cancel()
		if list.Wait() != nil {
			return ""
		}
		return out.String()
	}
}

// mustServeAllButSecrets checks what can be done without Trousseau.
func (f *fleet) mustServeAllButSecrets() {
	f.t.Helper()
	const missing = "unexpected nil transformer"
	if _, err := f.node.APIServer.TryKubectl(f.t.Context(), "", "get", "secret", "hello"); err == nil || !strings.Contains(err.Error(), missing) {
		f.t.Errorf("reading a Secret: %v, want %q", err, missing)
	}
	f.node.APIServer.Kubectl("get", "pods,nodes,daemonsets,configmaps,serviceaccounts", "--all-namespaces")
	f.node.APIServer.Kubectl("create", "token", "trousseau", "--namespace="+namespace)
}

// mustEndWithoutHealth waits for kube-controller-manager to end: it asks for /healthz
// for ten seconds before it starts any controller.
func (f *fleet) mustEndWithoutHealth() {
	f.t.Helper()
	f.Await(time.Minute, "kube-controller-manager to end", func(context.Context) error {
		if f.controllers.Running() {
			return errors.New("it still runs")
		}
		return nil
	})
	lines := slices.Collect(strings.Lines(f.controllers.Log()))
	last := strings.Join(lines[max(0, len(lines)-10):], "")
	if code := f.controllers.ExitCode(); code == 0 || !strings.Contains(last, "failed to wait for apiserver being healthy") ||
		!strings.Contains(last, "[-]kms-providers failed") {
		f.t.Errorf("kube-controller-manager has ended with exit code %d, and has logged last\n%s", code, last)
	}
}

// awaitPods waits until each node runs one pod that encrypts a seed.
func (f *fleet) awaitPods() {
	f.t.Helper()
	for _, n := range f.nodes {
		var pod *kubelet.Pod
		f.Await(2*time.Minute, n.Name+"'s pod to be ready alone", func(ctx context.Context) error {
			pods := running(n, "trousseau")
			if len(pods) != 1 {
				return fmt.Errorf("%d pods", len(pods))
			}
			pod = pods[0]
			return pod.Ready(ctx)
		})
		if err := f.attachTo(n, pod, "").RoundTrip(f.t.Context()); err != nil {
			f.t.Errorf("%s: encrypting a seed: %v", n.Name, err)
		}
	}
}

// awaitSecret waits until the API server is ready and its Secret can be read, and
// returns how long that took since began.
func (f *fleet) awaitSecret(began time.Time) time.Duration {
	f.t.Helper()
	f.node.APIServer.AwaitReady()
	if got := f.node.APIServer.Kubectl("get", "secret", "hello", "-o", "jsonpath={.data.who}"); got != "d29ybGQ=" {
		f.t.Errorf("the Secret reads %q", got)
	}
	return time.Since(began).Round(time.Second)
}

// loseBoundPods lets the first node's pod fail, as a kubelet does before a graceful
// shutdown, and removes the others. No controllers run that would make them again.
func (f *fleet) loseBoundPods() {
	f.t.Helper()
	pods := f.node.APIServer.Client.CoreV1().Pods(namespace)
	list, err := pods.List(f.t.Context(), metav1.ListOptions{})
	if err != nil {
		f.t.Fatal(err)
	}
	for _, pod := range list.Items {
		if pod.Spec.NodeName != f.nodes[0].Name {
			f.node.APIServer.Kubectl("delete", "pod", pod.Name, "--namespace="+namespace, "--force", "--grace-period=0")
			continue
		}
		f.Await(30*time.Second, "the pod to fail", func(ctx context.Context) error {
			now, err := pods.Get(ctx, pod.Name, metav1.GetOptions{})
			if err != nil || now.Status.Phase == corev1.PodFailed {
				return err
			}
			now.Status.Phase, now.Status.Reason = corev1.PodFailed, "Terminated"
			now.Status.Message = "Pod was terminated in response to imminent node shutdown."
			_, err = pods.UpdateStatus(ctx, now, metav1.UpdateOptions{})
			return errors.Join(err, errors.New("not yet"))
		})
	}
}

// runbookStep matches the command of the runbook in docs/install.md.
var runbookStep = regexp.MustCompile("(?ms)^<!-- step: cold-start -->\n```sh\n(.*?)^```$")

// runbook runs the command of docs/install.md for one node.
func (f *fleet) runbook(node string) {
	f.t.Helper()
	text, err := os.ReadFile("../../docs/install.md")
	if err != nil {
		f.t.Fatal(err)
	}
	steps := runbookStep.FindAllStringSubmatch(string(text), -1)
	if len(steps) != 1 || strings.Count(steps[0][1], "NODE=NAME") != 1 {
		f.t.Fatalf("docs/install.md has %d commands for a cold start, want one with NODE=NAME", len(steps))
	}
	f.paste("cold-start", strings.Replace(steps[0][1], "NODE=NAME", "NODE="+node, 1))
}
