// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// An operator enables the chart's CronJobs on a cluster with the files of kubeadm, and
// starts each at once. kube-controller-manager and a kubelet run them. The audit finds a
// Secret in the clear, the rotation encrypts it under a new version, the re-encryption
// under one that it has not made, and the audit finds nothing. doctor finds that Vault is away. None has more rights than it uses.
func TestCronJobs(t *testing.T) {
	s := prepareStageWith(t, "15 CronJobs", func(b *testbed.Bed) testbed.Options {
		return testbed.Options{Etcd: b.StartSecureEtcd("127.0.0.1:" + strconv.Itoa(b.FreePort()))}
	})
	f := s.fleet(1)
	api, n := f.node.APIServer, f.nodes[0]
	for name, file := range map[string]string{"etcd/ca.crt": f.CAFile(), "apiserver-etcd-client.crt": f.Etcd.CertFile, "apiserver-etcd-client.key": f.Etcd.KeyFile} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		f.Write(n.Path("/etc/kubernetes/pki/"+name), string(text))
	}
	f.Vault.CLI("write", "auth/kubernetes/role/trousseau", "bound_service_account_names=trousseau",
		"bound_service_account_namespaces="+namespace, "token_policies=trousseau", "token_ttl=1h")
	token := f.makeRotationToken()
	f.helmDo("install", fmt.Sprintf(jobs, f.Etcd.URL, f.port))
	f.mustHaveRights("nodes [] [] [get]", "pods/portforward [] [] [get create]", "pods [] [] [list]")
	f.helmDo("upgrade", fmt.Sprintf(jobs+"    ops: [127.0.0.1:%[2]d]\n", f.Etcd.URL, f.port))
	f.awaitRollout(release, 3*time.Minute)
	plugin := f.attachTo(n, running(n, "trousseau")[0], "127.0.0.1:"+strconv.Itoa(f.port))
	f.mustHaveRights()

	api.Kubectl("create", "secret", "generic", "hello", "--from-literal=who=world")
	f.encrypt()
	api.AwaitReady()
	v1 := plugin.KeyID()
	f.mustRun("audit", 3, "secrets", "in the clear")
	f.mustRun("doctor", 0, "0 failed")

	if log := f.mustRun("rotate-key", 0, "version 2"); strings.Contains(log, token) {
		t.Error("rotate-key has logged its token")
	}
	v2 := plugin.KeyID()
	if object, err := testbed.Decode(f.Etcd.Stored("default", "hello")); err != nil || v2 == v1 || object.GetKeyID() != v2 {
		t.Errorf("rotated: the plugin has %s after %s, the Secret is under %q: %v", v2, v1, object.GetKeyID(), err)
	}
	// A rotation that the job does not make: by Vault itself, or by hand.
	f.Vault.CLI("write", "-f", "transit/keys/"+testbed.Key+"/rotate")
	f.mustRun("reencrypt", 0, "Audit: 0 objects not under the current key_id")
	if object, err := testbed.Decode(f.Etcd.Stored("default", "hello")); err != nil || !strings.Contains(object.GetKeyID(), "/v3@") {
		t.Errorf("re-encrypted: the Secret is under %q: %v", object.GetKeyID(), err)
	}
	f.mustRun("reencrypt", 0, "0  rewritten")
	textfile := n.Path("/var/lib/node_exporter")
	if err := os.MkdirAll(textfile, 0o700); err != nil {
		t.Fatal(err)
	}
	f.helmDo("upgrade", strings.Replace(fmt.Sprintf(jobs, f.Etcd.URL, f.port), "verify: true", "verify: true, textfileDirectory: /var/lib/node_exporter", 1))
	f.mustRun("audit", 0)
	const clear = "trousseau_audit_in_the_clear_objects{"
	if text, err := os.ReadFile(filepath.Join(textfile, "trousseau-audit.prom")); err != nil || !strings.Contains(string(text), clear) {
		t.Errorf("the audit's metrics: %v, want %s in\n%s", err, clear, text)
	}
	f.Await(time.Minute, "the run by hand to end the alert", func(ctx context.Context) error {
		job, err := api.Client.BatchV1().CronJobs(namespace).Get(ctx, release+"-audit", metav1.GetOptions{})
		if err == nil && job.Status.LastSuccessfulTime == nil {
			err = errors.New("the CronJob has not succeeded")
		}
		return err
	})
	if got := api.Kubectl("get", "secret", "hello", "-o", "jsonpath={.data.who}"); got != "d29ybGQ=" {
		t.Errorf("the Secret reads %q", got)
	}

	f.Proxy.Refuse()
	f.mustRun("doctor", 3, "connection refused")
	f.Proxy.Pass()
	f.Observe("audit: plaintext found, then nothing; rotate-key: %s to %s; doctor: nothing, then an outage", v1, v2)
}

// jobs never start by themselves during a test. The last are those of rotateKey, because
// this kubelet does not serve port-forward.
const jobs = `
cronJobs:
  etcd: {endpoints: [%[1]q]}
  audit: {enabled: true, verify: true, schedule: "0 0 30 2 *"}
  doctor: {enabled: true, schedule: "0 0 30 2 *"}
  reencrypt: {enabled: true, schedule: "0 0 30 2 *", ops: [127.0.0.1:%[2]d]}
  rotateKey:
    enabled: true
    schedule: "0 0 30 2 *"
    vaultToken: {secretName: trousseau-rotate-key}
`

// makeRotationToken does what docs/operations.md says.
func (f *fleet) makeRotationToken() (token string) {
	f.t.Helper()
	f.Write("setup/rotate-key.hcl", f.Documented("rotate-key.hcl"))
	script := f.Write("setup/rotate-key.sh", f.Documented("rotate-key.sh"))
	cmd := exec.CommandContext(f.t.Context(), "/bin/sh", script)
	cmd.Dir = filepath.Dir(script)
	cmd.Env = append(f.Vault.AdminEnvironment("https://"+f.Proxy.Addr), "KUBECONFIG="+f.node.APIServer.Kubeconfig(), "PATH="+f.path()+":/usr/bin:/bin")
	if out, err := cmd.CombinedOutput(); err != nil {
		f.t.Fatalf("rotate-key.sh: %v\n%s", err, out)
	}
	secret, err := f.node.APIServer.Client.CoreV1().Secrets(namespace).Get(f.t.Context(), "trousseau-rotate-key", metav1.GetOptions{})
	if err != nil {
		f.t.Fatal(err)
	}
	return strings.TrimSpace(string(secret.Data["token"]))
}

// mustRun starts a CronJob as an operator does, does kube-scheduler's work, and compares
// the Job's end and its container's log, which it returns.
func (f *fleet) mustRun(command string, code int32, want ...string) string {
	f.t.Helper()
	api, ctx := f.node.APIServer, f.t.Context()
	name := fmt.Sprintf("%s-%d", command, time.Now().UnixMilli())
	api.Kubectl("create", "job", "--namespace="+namespace, "--from=cronjob/"+release+"-"+command, name)
	pods := func() []corev1.Pod {
		list, err := api.Client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: batchv1.JobNameLabel + "=" + name})
		if err != nil {
			f.t.Fatal(err)
		}
		return list.Items
	}
	f.Await(time.Minute, "the pod of "+name, func(context.Context) error {
		if got := len(pods()); got != 1 {
			return fmt.Errorf("there are %d", got)
		}
		return nil
	})
	pod := pods()[0]
	template := f.daemonSet().Spec.Template.Spec
	if !reflect.DeepEqual(pod.Spec.Affinity, template.Affinity) || !reflect.DeepEqual(pod.Spec.NodeSelector, template.NodeSelector) {
		f.t.Errorf("%s is for other nodes than the DaemonSet's: %+v", name, pod.Spec.Affinity)
	}
	binding := &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: pod.Name, Namespace: namespace}, Target: corev1.ObjectReference{Kind: "Node", Name: f.nodes[0].Name}}
	if err := api.Client.CoreV1().Pods(namespace).Bind(ctx, binding, metav1.CreateOptions{}); err != nil {
		f.t.Fatal(err)
	}
	wanted := batchv1.JobComplete
	if code != 0 {
		wanted = batchv1.JobFailed
	}
	log := func() string {
		files, err := filepath.Glob(filepath.Join(f.Dir, "log", pod.Name+".*-"+command+".log"))
		if err != nil || len(files) != 1 {
			return fmt.Sprintf("logs %v, %v", files, err)
		}
		text, _ := os.ReadFile(files[0]) // empty: the test fails
		return string(text)
	}
	took := f.Await(5*time.Minute, name+" to end", func(ctx context.Context) error {
		// It ends if a slow machine makes it miss its lease; its kubelet would start it again.
		if !f.controllers.Running() {
			if err := f.controllers.TryStart(); err != nil {
				return err
			}
		}
		job, err := api.Client.BatchV1().Jobs(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, c := range job.Status.Conditions {
			if c.Status == corev1.ConditionTrue && (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) {
				if c.Type != wanted {
					f.t.Fatalf("%s: %s, want %s:\n%s", name, c.Type, wanted, log())
				}
				return nil
			}
		}
		return fmt.Errorf("conditions %v", job.Status.Conditions)
	})
	ended := pods()
	if len(ended) != 1 || ended[0].Status.ContainerStatuses[0].State.Terminated.ExitCode != code {
		f.t.Errorf("%s: %d pods, want one with exit code %d: %+v", name, len(ended), code, ended[0].Status.ContainerStatuses)
	}
	for _, text := range want {
		if !strings.Contains(log(), text) {
			f.t.Errorf("%s has not logged %q:\n%s", name, text, log())
		}
	}
	f.Observe("%s: exit code %d, %s, %s after its start", command, code, wanted, took.Round(100*time.Millisecond))
	return log()
}

// mustHaveRights compares what the ServiceAccounts may do with what one without any role
// may do. The first of more is for the whole cluster, the others for the namespace.
func (f *fleet) mustHaveRights(more ...string) {
	f.t.Helper()
	rights := func(account, space string) []string {
		out := f.node.APIServer.Kubectl("auth", "can-i", "--list", "--no-headers", "--namespace="+space, "--as=system:serviceaccount:"+namespace+":"+account)
		var all []string
		for line := range strings.Lines(out) {
			all = append(all, strings.Join(strings.Fields(line), " "))
		}
		return all
	}
	for account, want := range map[string]map[string][]string{
		"trousseau": {
			namespace: {"subjectaccessreviews.authorization.k8s.io [] [] [create]", "tokenreviews.authentication.k8s.io [] [] [create]"},
		},
		"trousseau-reencrypt": {
			namespace: {"[/metrics] [] [get]", "[/readyz/*] [] [get]", "secrets [] [] [patch]"},
			"default": {"[/metrics] [] [get]", "[/readyz/*] [] [get]", "endpointslices.discovery.k8s.io [] [] [list]", "secrets [] [] [patch]"},
		},
		"trousseau-rotate-key": {
			namespace: {"[/metrics] [] [get]", "[/readyz/*] [] [get]", "secrets [] [] [patch]", "storageversionmigrations.storagemigration.k8s.io [] [] [create get delete]"},
			"default": {"[/metrics] [] [get]", "[/readyz/*] [] [get]", "endpointslices.discovery.k8s.io [] [] [list]", "secrets [] [] [patch]", "storageversionmigrations.storagemigration.k8s.io [] [] [create get delete]"},
		},
	} {
		for space, want := range want {
			if account == "trousseau-rotate-key" && space == namespace {
				want = append(want, more...)
			} else if account == "trousseau-rotate-key" {
				want = append(want, more[:min(1, len(more))]...)
			}
			slices.Sort(want)
			none := rights("none", space)
			got := slices.DeleteFunc(rights(account, space), func(r string) bool { return slices.Contains(none, r) })
			slices.Sort(got)
			if !slices.Equal(got, want) {
				f.t.Errorf("in %s, %s may\n%s\nwant\n%s", space, account, strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		}
	}
	accounts := strings.Fields(f.node.APIServer.Kubectl("get", "serviceaccounts", "--namespace="+namespace, "-l", "app.kubernetes.io/instance="+release, "-o", "name"))
	if want := []string{"serviceaccount/trousseau", "serviceaccount/trousseau-reencrypt", "serviceaccount/trousseau-rotate-key"}; !slices.Equal(accounts, want) {
		f.t.Errorf("ServiceAccounts %v, want %v", accounts, want)
	}
}
