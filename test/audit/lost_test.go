// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	kmsapi "k8s.io/kms/apis/v2"

	"github.com/trousseau-io/trousseau/internal/ctl/audit/stored"
	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// A key version is trimmed while Secrets are still under it. The operator goes through
// docs/operations.md, "Deleting what cannot be read": the audit names the Secrets and
// prints a call for each, which the API server refuses without the documented role and
// for what it can read, tries with dryRun, and then executes.
func TestDeletingWhatCannotBeRead(t *testing.T) {
	bed := testbed.New(t, &report, "5 unreadable Secrets are deleted")
	c := testbed.SetUp(bed, testbed.Options{TrousseauFlags: []string{"--probe-interval=1s"}, APIServerFlags: unsafeDeletion(bed)})
	node := c.Nodes[0]
	version, err := node.APIServer.Client.Discovery().ServerVersion()
	if err != nil {
		t.Fatal(err)
	}
	create(t, node.APIServer, "old-", 2)
	rotate(t, c)
	create(t, node.APIServer, "new-", 1)
	const broken = "/registry/secrets/default/broken"
	if err := put(t.Context(), c.Etcd, broken, []byte(testbed.StoredPrefix+"x")); err != nil {
		t.Fatal(err)
	}
	saved := node.APIServer.Kubectl("get", "secret", "old-0", "-o", "yaml")
	for _, minimum := range []string{"config min_decryption_version=2 min_encryption_version=2", "trim min_available_version=2"} {
		c.Vault.CLI(append([]string{"write"}, strings.Fields("transit/keys/"+testbed.Key+"/"+minimum)...)...)
	}
	// Without its cache, the API server has lost the seed too.
	node.APIServer.Stop()
	node.APIServer.Start()
	node.APIServer.AwaitLive()
	secrets := node.APIServer.Client.CoreV1().Secrets(metav1.NamespaceDefault)
	if _, err := secrets.Get(t.Context(), "old-0", metav1.GetOptions{}); !apierrors.IsInternalError(err) {
		t.Fatalf("reading a lost Secret: %v, want an internal error", err)
	}
	if err := secrets.Delete(t.Context(), "old-0", metav1.DeleteOptions{}); !apierrors.IsInternalError(err) {
		t.Errorf("deleting it as usual: %v, want an internal error", err)
	}

	args := []string{"--endpoints", c.Etcd.URL, "--verify", "--vault-config", node.ConfigFile}
	f, code := audit(t, args...)
	if code != 3 || f.Drill.LostObjects != 2 || len(f.Unreadable) != 3 {
		t.Fatalf("exit code %d, %+v, unreadable %+v; want 2 lost and 1 malformed", code, f.Drill, f.Unreadable)
	}
	table, _, _ := run(t, args...)
	for _, u := range f.Unreadable {
		if !strings.Contains(table, "\n      "+u.Remove+"\n") {
			t.Errorf("%s is not in the table:\n%s", u.Remove, table)
		}
	}

	as := func(user, command string) string {
		return strings.Replace(command, "kubectl ", "kubectl --as="+user+" ", 1)
	}
	node.APIServer.Kubectl("create", "clusterrole", "deleter", "--verb=delete", "--resource=secrets")
	node.APIServer.Kubectl("create", "clusterrolebinding", "deleter", "--clusterrole=deleter", "--user=deleter")
	node.APIServer.Kubectl("apply", "-f", bed.Write("delete-unreadable.yaml", bed.Documented("delete-unreadable.yaml")))
	node.APIServer.Kubectl("create", "clusterrolebinding", "operator", "--clusterrole=delete-unreadable", "--user=operator")
	remove := f.Unreadable[0].Remove
	if out, err := shell(t, node, as("deleter", remove)); err == nil || !strings.Contains(out, "unsafe-delete-ignore-read-errors") {
		t.Errorf("with the verb delete only: %v\n%s\nwant that the other verb is missing", err, out)
	}
	readable := strings.Replace(f.Unreadable[1].Remove, "old-0", "new-0", 1)
	if out, err := shell(t, node, as("operator", readable)); err == nil {
		t.Errorf("a readable Secret was deleted: %s", out)
	} else {
		bed.Observe("%s: a readable object is refused: %s", version, strings.TrimSpace(out))
	}
	if out, err := shell(t, node, as("operator", strings.Replace(remove, "=true'", "=true&dryRun=All'", 1))); err != nil {
		t.Errorf("dryRun: %v\n%s", err, out)
	}
	if again, _ := audit(t, args...); len(again.Unreadable) != 3 {
		t.Errorf("after dryRun: %+v, want all three", again.Unreadable)
	}
	for _, u := range f.Unreadable {
		if out, err := shell(t, node, as("operator", u.Remove)); err != nil {
			t.Errorf("%s: %v\n%s", u.Remove, err, out)
		}
	}
	// What was saved is created again, under the key version in use.
	node.APIServer.KubectlWithInput(regexp.MustCompile(`(?m)^ +(resourceVersion|uid): .*\n`).ReplaceAllString(saved, ""), "create", "-f", "-")
	if f, code := audit(t, args...); code != 0 || len(f.Unreadable) != 0 || f.Objects == 0 {
		t.Errorf("after the deletion: exit code %d, findings %+v", code, f.Findings)
	}
	bed.Await(time.Minute, "the Secrets to be listed", func(ctx context.Context) error {
		list, err := secrets.List(ctx, metav1.ListOptions{})
		if err == nil && len(list.Items) != 2 {
			err = fmt.Errorf("%d Secrets, want new-0 and old-0", len(list.Items))
		}
		return err
	})
}

// The calls are right for every resource that kube-apiserver stores: it finds at each
// path the object that the audit found in etcd.
func TestCallsForEveryResource(t *testing.T) {
	bed := testbed.New(t, &report, "6 an unreadable object of each resource")
	e := bed.StartEtcd()
	api := bed.NewAPIServer("apiserver", e, bed.NewCredentials(), unsafeDeletion(bed)...)
	api.Start()
	api.AwaitReady()
	lists, err := api.Client.Discovery().ServerPreferredResources()
	if err != nil {
		t.Fatal(err)
	}
	paths := make(map[string]string) // by key
	for _, list := range lists {
		version, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range list.APIResources {
			if !slices.Contains(r.Verbs, "delete") || version.Group == "events.k8s.io" {
				continue // Events are stored once
			}
			resource, path, object := r.Name, "/apis/"+list.GroupVersion, "unreadable"
			if version.Group == "" {
				path = "/api/v1"
			} else {
				resource += "." + version.Group
			}
			if r.Namespaced {
				path += "/namespaces/default"
				object = "default/unreadable"
			}
			prefixes := stored.Prefixes("/registry/", resource)
			prefix := prefixes[len(prefixes)-1]
			if version.Group == "apiregistration.k8s.io" || version.Group == "apiextensions.k8s.io" {
				prefix = prefixes[0]
			}
			paths[prefix+object] = path + "/" + r.Name + "/unreadable"
		}
	}
	if len(paths) < 50 {
		t.Fatalf("only %d resources: %v", len(paths), paths)
	}
	for key := range paths {
		if err := put(t.Context(), e, key, []byte("k8s:enc:kms:v2:none:x")); err != nil {
			t.Fatal(err)
		}
	}
	remove := func(path string) error {
		return api.Client.Discovery().RESTClient().Delete().RequestURI(path).Do(t.Context()).Error()
	}
	// The plugin has nothing to do: every value is malformed.
	f, _ := audit(t, "--endpoints", e.URL, "--verify", "--plugin", "unix://"+listen(t, func(g *grpc.Server) { kmsapi.RegisterKeyManagementServiceServer(g, idlePlugin{}) }))
	var without []string
	for _, u := range f.Unreadable {
		if _, quoted, found := strings.Cut(u.Remove, "'"); found {
			if err := remove(strings.TrimSuffix(quoted, "'")); err != nil {
				t.Errorf("%s: %s: %v", u.Key, u.Remove, err)
			}
			continue
		}
		without = append(without, u.Key)
		err := remove(paths[u.Key] + "?ignoreStoreReadErrorWithClusterBreakingPotential=true")
		if err == nil || !strings.Contains(err.Error(), "no unsafe deleter provided") {
			t.Errorf("%s: the audit prints no call; kube-apiserver answers %v", u.Key, err)
		}
	}
	left := unreadable(t, e)
	slices.Sort(left)
	if !slices.Equal(left, without) {
		t.Errorf("still there: %q, without a call: %q", left, without)
	}
	bed.Observe("%d resources, of which kube-apiserver deletes these not: %s", len(f.Unreadable), strings.Join(without, " "))
}

// unsafeDeletion returns the flags with which kube-apiserver deletes what it cannot
// read: none since 1.37, and the documented feature gate before.
func unsafeDeletion(bed *testbed.Bed) []string {
	if bed.IsKubernetes(37) {
		return nil
	}
	return []string{"--feature-gates=AllowUnsafeMalformedObjectDeletion=true"}
}

// unreadable returns the keys of the objects named so.
func unreadable(t *testing.T, e *testbed.Etcd) (keys []string) {
	t.Helper()
	for key := range e.List("/registry/") {
		if strings.HasSuffix(key, "/unreadable") {
			keys = append(keys, key)
		}
	}
	return keys
}

// shell runs a line of the audit as an administrator would.
func shell(t *testing.T, node *testbed.Node, line string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", line)
	cmd.Env = []string{"PATH=" + os.Getenv("TROUSSEAU_E2E") + ":/usr/bin:/bin", "KUBECONFIG=" + node.APIServer.Kubeconfig(), "HOME=" + t.TempDir()}
	out, err := cmd.CombinedOutput()
	return string(out), err
}
