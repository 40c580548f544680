// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"

	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// rotatedKey is the document of rotate-key.
type rotatedKey struct {
	Verdict, Error string
	Findings       []struct{ ID, Text string }
	Report         struct {
		Version, MinDecryptionVersion int
		Steps                         []struct{ Name, Command, Result, Text string }
		Reencrypt                     *struct {
			Resources []struct {
				Migration, Provider string
				Rewritten           int
			}
			Audit *struct{ Objects int }
		}
	}
}

// results returns the steps' results.
func (r rotatedKey) results() string {
	var all []string
	for _, s := range r.Report.Steps {
		all = append(all, s.Result)
	}
	return strings.Join(all, " ")
}

// An operator rotates the key in one command. It ends while kube-apiserver has the older key_id, is resumed, and
// then raises min_decryption_version. What is stored stays readable.
func TestRotateKey(t *testing.T) {
	bed := testbed.New(t, &report, "5 rotate-key")
	c := testbed.SetUp(bed, testbed.Options{TrousseauFlags: []string{"--probe-interval=1s"}})
	api, trousseau := c.Nodes[0].APIServer, c.Nodes[0].Trousseau
	const n = 200
	createSecrets(t, api, "old-", n)
	v1 := trousseau.KeyID()
	c.NewControllerManager().Start()
	admin := administrator{t, c.Vault.AdminEnvironment("https://" + c.Proxy.Addr)}
	run := func(code int, more ...string) (r rotatedKey) {
		t.Helper()
		stdout, _ := admin.trousseauctl(code, append([]string{"rotate-key", "-o", "json", "--endpoints", c.Etcd.URL,
			"--kubeconfig", bed.Write("admin.conf", api.Kubectl("config", "view", "--raw", "--flatten")),
			"--ops", opsAddr(t, trousseau)}, more...)...)
		if err := json.Unmarshal([]byte(stdout), &r); err != nil {
			t.Fatalf("%v in %s", err, stdout)
		}
		return r
	}

	if r := run(0, "--dry-run"); r.results() != "planned planned planned planned planned" || r.Report.Version != 1 || trousseau.KeyID() != v1 {
		t.Errorf("dry run: %s of version %d, want nothing changed", r.results(), r.Report.Version)
	}
	awaitPoll(t, bed, api)
	r := run(1, "--wait", "2s")
	if r.results() != "done failed planned planned planned" || r.Report.Version != 2 || !strings.Contains(r.Error, "run this again with --resume") {
		t.Errorf("before kube-apiserver knows the key_id: %s of version %d: %s", r.results(), r.Report.Version, r.Error)
	}
	if got := c.Etcd.KeyIDs(); !maps.Equal(got, map[string]int{v1: n}) {
		t.Errorf("then, Secrets by key_id: %v, want %d under %s", got, n, v1)
	}

	r = run(0, "--resume", "--raise-min-decryption-version")
	if r.results() != "skipped done done done done" || r.Report.MinDecryptionVersion != 2 || len(r.Findings) != 0 || r.Report.Reencrypt.Audit == nil {
		t.Errorf("resumed: %s, minimum %d, findings %+v", r.results(), r.Report.MinDecryptionVersion, r.Findings)
	}
	if got := r.Report.Reencrypt.Resources[0]; got.Provider != "trousseau" || got.Migration == "" && got.Rewritten != n {
		t.Errorf("resumed: %+v, want all rewritten", got)
	}
	v2 := trousseau.KeyID()
	if got := c.Etcd.KeyIDs(); !maps.Equal(got, map[string]int{v2: n}) {
		t.Errorf("in the end, Secrets by key_id: %v, want %d under %s", got, n, v2)
	}
	if got := strings.TrimSpace(c.Vault.CLI("read", "-field=min_decryption_version", "transit/keys/"+testbed.Key)); got != "2" {
		t.Errorf("min_decryption_version is %s, want 2", got)
	}
	if r := run(0, "--resume", "--raise-min-decryption-version"); r.results() != "skipped done done done skipped" {
		t.Errorf("again: %s", r.results())
	}
	api.Restart() // it forgets all seeds
	if got := string(secret(t, api, "old-7").Data["value"]); got != "0" {
		t.Errorf("a Secret is %q, want 0", got)
	}
	bed.Observe("%d Secrets; interrupted after the rotation, resumed, min_decryption_version raised to 2", n)
}
