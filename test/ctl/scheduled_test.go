// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trousseau-io/trousseau/test/harness/load"
	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// Nobody rotates and nobody re-encrypts by hand. First Vault rotates the key by itself,
// because auto_rotate_period is over. Then a timer rotates it every minute: Vault refuses
// a period below an hour. Two timers run the command of trousseau-reencrypt.service,
// sometimes at the same time. No read and no write fails on three API servers, and after
// the last rotation nothing is left under an older version, so that all of them can be
// retired. Shortened: --probe-interval=5s instead of 30s.
func TestScheduledRotation(t *testing.T) {
	if os.Getenv("TROUSSEAU_E2E") == "" {
		t.Skip("TROUSSEAU_E2E is not set; run `make long-test`")
	}
	if os.Getenv(programVariable) == "" {
		again(t)
		return
	}
	bed := testbed.New(t, &report, "9 scheduled rotation")
	settle(t, siteAddrs, siteDirs)
	c := testbed.NewCluster(bed, testbed.Options{
		Hosts:          siteAddrs,
		Etcd:           bed.StartSecureEtcd("127.0.0.1:2379"),
		TrousseauFlags: []string{"--probe-interval=5s"},
		APIServerFlags: []string{
			"--endpoint-reconciler-type=lease", "--service-cluster-ip-range=10.96.0.0/16", "--client-ca-file=" + bed.CAFile(),
		},
	})
	var apis []*testbed.APIServer
	for i, n := range c.Nodes {
		// An API server's identity is derived from the hostname at its start.
		if err := unix.Sethostname(fmt.Appendf(nil, "node%d", i+1)); err != nil {
			t.Fatal(err)
		}
		n.Encrypt()
		n.Trousseau.Start()
		n.APIServer.Start()
		n.APIServer.AwaitLive()
		apis = append(apis, n.APIServer)
	}
	c.SetUpVault()
	age(t, c.Vault, 5*time.Hour)
	for _, n := range c.Nodes {
		n.SetUpAgent()
		n.Agent.Start()
	}
	for _, n := range c.Nodes {
		n.Trousseau.AwaitReady()
		n.APIServer.AwaitReady()
	}
	const n = 200
	createSecrets(t, apis[0], "old-", n)
	users := bed.StartLoad(testbed.LoadOptions{APIServers: apis})
	readers := startReaders(t, apis, n)
	job := installJob(t, bed, apis[0])
	stop := make(chan struct{})
	var timers sync.WaitGroup
	for _, every := range []time.Duration{20 * time.Second, 30 * time.Second} {
		timers.Go(func() { job.runEvery(every, stop) })
	}

	key := "transit/keys/" + testbed.Key
	v1 := c.Nodes[0].Trousseau.KeyID()
	awaitVersion(c, 1)
	c.Vault.CLI("write", key+"/config", "auto_rotate_period=1h")
	// Vault looks for keys that are due once an hour, and after a start of the engine.
	c.Vault.CLI("write", "sys/plugins/reload/backend", "mounts=transit/")
	took := awaitVersion(c, 2)
	bed.Observe("Vault has rotated %s by itself; all three plugins had version 2 after %s", v1, took.Round(time.Second))

	const rotations = 5
	for i := range rotations {
		began := time.Now()
		bed.Await(70*time.Second, "the next minute", func(context.Context) error {
			if time.Since(began) < time.Minute {
				return errors.New("not yet")
			}
			return nil
		})
		c.Vault.CLI("write", "-f", key+"/rotate")
		awaitVersion(c, 3+i)
	}
	newest := c.Nodes[0].Trousseau.KeyID()
	took = bed.Await(4*time.Minute, "nothing to be left under an older version", func(context.Context) error {
		if got := c.Etcd.KeyIDs(); len(got) != 1 || got[newest] < n {
			return fmt.Errorf("Secrets by key_id: %v", got)
		}
		return nil
	})
	close(stop)
	timers.Wait()
	job.mustHaveSucceeded(rotations)
	bed.Observe("%d rotations a minute apart, %d runs of the job; after the last, the older versions were empty within %s",
		rotations, job.runs, took.Round(time.Second))

	admin := administrator{t, c.Vault.AdminEnvironment("https://" + c.Proxy.Addr)}
	stdout, _ := admin.trousseauctl(0, "rotate-key", "--resume", "--raise-min-decryption-version", "-o", "json", "--kubeconfig", apis[0].Kubeconfig(),
		"--ops", strings.Join(siteAddrs, ","), "--endpoints", c.Etcd.URL, "--cacert", c.CAFile(), "--cert", c.Etcd.CertFile, "--key", c.Etcd.KeyFile)
	var r rotatedKey
	decode(t, stdout, &r)
	if want := 2 + rotations; r.Report.MinDecryptionVersion != want || r.Report.Version != want {
		t.Errorf("min_decryption_version is %d of %d, want %d", r.Report.MinDecryptionVersion, r.Report.Version, want)
	}
	tally := users.Stop()
	reads := readers.stop()
	bed.Count(tally.Operations()+reads.Operations, tally.Failures()+reads.Failures)
	if tally.Failures() > 0 || reads.Failures > 0 {
		t.Errorf("operations on Secrets: %s; lists: %s; want no failures", tally.Secrets, reads)
	}
	apis[2].Restart() // it forgets all seeds
	if err := readAll(t.Context(), apis[2], n, ""); err != nil {
		t.Error(err)
	}
	bed.Observe("min_decryption_version raised to %d, and everything is readable after a restart; operations: %s, lists: %s",
		r.Report.MinDecryptionVersion, tally.Secrets, reads)
}

// age makes the key's only version older, with a backup that is restored.
func age(t *testing.T, v *testbed.Vault, by time.Duration) {
	t.Helper()
	v.CLI("write", "transit/keys/"+testbed.Key+"/config", "exportable=true", "allow_plaintext_backup=true")
	text, err := base64.StdEncoding.DecodeString(v.CLI("read", "-field=backup", "transit/backup/"+testbed.Key))
	if err != nil {
		t.Fatal(err)
	}
	var backup map[string]any
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&backup); err != nil {
		t.Fatal(err)
	}
	created := time.Now().Add(-by)
	aged := 0
	walkVersions(backup, func(version map[string]any) {
		version["time"], version["creation_time"] = created, created.Unix()
		aged++
	})
	if text, err = json.Marshal(backup); err != nil || aged == 0 {
		t.Fatalf("%v; %d versions in the backup", err, aged)
	}
	v.CLIWithInput(base64.StdEncoding.EncodeToString(text), "write", "transit/restore/"+testbed.Key, "backup=-", "force=true")
}

// walkVersions calls each for every version of a key in a backup.
func walkVersions(value any, each func(map[string]any)) {
	switch value := value.(type) {
	case map[string]any:
		if _, found := value["creation_time"]; found {
			each(value)
			return
		}
		for _, v := range value {
			walkVersions(v, each)
		}
	case []any:
		for _, v := range value {
			walkVersions(v, each)
		}
	}
}

// awaitVersion waits until every plugin reports a key_id of this version, and returns how
// long that took.
func awaitVersion(c *testbed.Cluster, version int) time.Duration {
	return c.Await(2*time.Minute, fmt.Sprintf("every plugin to have version %d", version), func(ctx context.Context) error {
		for _, n := range c.Nodes {
			status, err := n.Trousseau.KMS.Status(ctx)
			if err != nil {
				return err
			}
			if !strings.Contains(status.KeyID, fmt.Sprintf("/v%d@", version)) {
				return fmt.Errorf("%s has %s", n.Trousseau.Name, status.KeyID)
			}
		}
		return nil
	})
}

// readers list all Secrets of every API server, from etcd and from its cache.
type readers struct {
	workers *load.Workers
	count   load.Counter
}

func startReaders(t *testing.T, apis []*testbed.APIServer, n int) *readers {
	r := &readers{workers: load.NewWorkers()}
	t.Cleanup(r.workers.Stop)
	for _, api := range apis {
		for _, revision := range []string{"", "0"} {
			r.workers.Go(time.Second, func() {
				_ = r.count.Do(context.WithoutCancel(t.Context()), 20*time.Second, func(ctx context.Context) error { return readAll(ctx, api, n, revision) })
			})
		}
	}
	return r
}

func (r *readers) stop() load.Count {
	r.workers.Stop()
	return r.count.Count()
}

// readAll checks the values of the n Secrets that exist from the beginning.
func readAll(ctx context.Context, api *testbed.APIServer, n int, revision string) error {
	list, err := api.Client.CoreV1().Secrets(metav1.NamespaceDefault).List(ctx, metav1.ListOptions{ResourceVersion: revision})
	if err != nil {
		return fmt.Errorf("%s: %w", api.Name, err)
	}
	read := 0
	for _, s := range list.Items {
		if strings.HasPrefix(s.Name, "old-") && string(s.Data["value"]) == "0" {
			read++
		}
	}
	if read != n {
		return fmt.Errorf("%s: %d Secrets with their value, want %d", api.Name, read, n)
	}
	return nil
}

// job is what trousseau-reencrypt.service starts.
type job struct {
	t   *testing.T
	cmd []string
	env []string

	mu     sync.Mutex
	runs   int
	failed []string
	waited int // runs that have waited for API servers
}

// installJob installs the unit with the files and rights shown in docs/operations.md, and
// reads it as systemd does.
func installJob(t *testing.T, bed *testbed.Bed, api *testbed.APIServer) *job {
	t.Helper()
	api.Kubectl("apply", "-f", bed.Write("setup/reencrypt.yaml", bed.Documented("reencrypt.yaml")))
	cert, key := bed.IssueClient("trousseau-reencrypt")
	for from, to := range map[string]string{
		bed.CAFile(): "/etc/kubernetes/pki/etcd/ca.crt",
		filepath.Join(bed.Dir, "etcd-client.pem"): "/etc/kubernetes/pki/apiserver-etcd-client.crt",
		filepath.Join(bed.Dir, "etcd-client.key"): "/etc/kubernetes/pki/apiserver-etcd-client.key",
	} {
		text, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		bed.Write(to, string(text))
	}
	bed.Write("/etc/trousseau/reencrypt.env", bed.Documented("reencrypt.env"))
	bed.Write("/etc/trousseau/reencrypt.kubeconfig", fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: %q, certificate-authority: %q}}]
users: [{name: u, user: {client-certificate: %q, client-key: %q}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`, api.URL, bed.CAFile(), bed.Write("reencrypt.crt", cert), bed.Write("reencrypt.key", key)))

	unit, err := os.ReadFile(filepath.Join("..", "..", "charts", "systemd", "trousseau-reencrypt.service"))
	if err != nil {
		t.Fatal(err)
	}
	credentials := filepath.Join(bed.Dir, "credentials")
	variables := map[string]string{"CREDENTIALS_DIRECTORY": credentials}
	set := func(assignments []string) {
		for _, a := range assignments {
			name, value, _ := strings.Cut(a, "=")
			variables[name] = value
		}
	}
	var command string
	for line := range strings.Lines(strings.ReplaceAll(string(unit), "\\\n", " ")) {
		setting, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch setting {
		case "Environment":
			set(strings.Fields(value))
		case "EnvironmentFile":
			text, err := os.ReadFile(value)
			if err != nil {
				t.Fatal(err)
			}
			set(strings.Fields(string(text)))
		case "LoadCredential":
			name, file, _ := strings.Cut(value, ":")
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			bed.Write(filepath.Join(credentials, name), string(text))
		case "ExecStart":
			command = value
		}
	}
	j := &job{t: t}
	for _, word := range strings.Fields(command) {
		j.cmd = append(j.cmd, os.Expand(word, func(name string) string { return variables[name] }))
	}
	if len(j.cmd) == 0 || j.cmd[0] != "trousseauctl" {
		t.Fatalf("the unit starts %q", j.cmd)
	}
	for name, value := range variables {
		j.env = append(j.env, name+"="+value)
	}
	return j
}

// runEvery starts the job at this interval, or when it has ended if that is later.
func (j *job) runEvery(interval time.Duration, stop <-chan struct{}) {
	program, err := trousseauctl()
	if err != nil {
		j.t.Error(err)
		return
	}
	for tick := time.NewTicker(interval); ; {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		cmd := exec.CommandContext(j.t.Context(), program, j.cmd[1:]...)
		cmd.Env = j.env
		out, err := cmd.CombinedOutput()
		j.mu.Lock()
		j.runs++
		if err != nil {
			j.failed = append(j.failed, fmt.Sprintf("%v\n%s", err, out))
		}
		if bytes.Contains(out, []byte("waiting: ")) {
			j.waited++
		}
		j.mu.Unlock()
	}
}

// mustHaveSucceeded fails the test if a run has failed, or there were too few of them, or
// none that has met a rotation.
func (j *job) mustHaveSucceeded(least int) {
	j.t.Helper()
	for _, f := range j.failed {
		j.t.Errorf("a run of the job: %s", f)
	}
	if j.runs < least || j.waited == 0 {
		j.t.Errorf("%d runs, of which %d have waited for a rotation, want at least %d and one", j.runs, j.waited, least)
	}
}
