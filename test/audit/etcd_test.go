// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/trousseau-io/trousseau/internal/testkit/storedtest"
	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// put writes through etcd's JSON gateway.
func put(ctx context.Context, e *testbed.Etcd, key string, value []byte) error {
	return gateway(ctx, e, "kv/put", map[string]any{"key": []byte(key), "value": value})
}

func gateway(ctx context.Context, e *testbed.Etcd, path string, message any) error {
	body, err := json.Marshal(message)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.URL+"/v3/"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", path, resp.Status)
	}
	return nil
}

// fill writes n objects of 2 KiB under /registry/secrets/default/.
func fill(t *testing.T, e *testbed.Etcd, n int) {
	t.Helper()
	value := append(storedtest.Protobuf(), make([]byte, 2048)...)
	group, ctx := errgroup.WithContext(t.Context())
	group.SetLimit(8)
	for i := range n {
		group.Go(func() error { return put(ctx, e, fmt.Sprintf("/registry/secrets/default/%06d", i), value) })
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
}

func etcdctl(t *testing.T, bed *testbed.Bed, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), bed.Tool("etcdctl"), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("etcdctl %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// An operator audits an etcd during writes and a compaction, which kube-apiserver
// requests every five minutes.
func TestCompactedWhileItIsRead(t *testing.T) {
	bed := testbed.New(t, &report, "1 audit during a compaction")
	e := bed.StartEtcd()
	const n = 4000
	fill(t, e, n)
	g := newGate(t, strings.TrimPrefix(e.URL, "http://"), 3<<20)
	go func() {
		defer close(g.open)
		select {
		case <-g.closed:
		case <-t.Context().Done():
			return
		}
		// A key already read, one not read yet, and a new one.
		for _, key := range []string{"000000", "003999", "999999"} {
			if err := put(t.Context(), e, "/registry/secrets/default/"+key, storedtest.AESCBC("k")); err != nil {
				t.Error(err)
			}
		}
		if err := gateway(t.Context(), e, "kv/compaction", map[string]any{"revision": n + 4}); err != nil {
			t.Error(err)
		}
	}()
	f, code := audit(t, "--endpoints", "http://"+g.addr)
	if code != 3 {
		t.Errorf("exit code %d, want 3: Secrets are in plaintext", code)
	}
	if len(f.Source.Resumptions) != 1 || !strings.HasPrefix(f.Source.Resumptions[0].FromKey, `"/registry/secrets/default/`) {
		t.Fatalf("resumptions %+v, want one", f.Source.Resumptions)
	}
	// Keys read before the compaction have their old values, the others their current
	// ones: the new key and the later of the two changed keys.
	if f.Objects != n+1 || f.Resources[0].InTheClear != n-1 {
		t.Errorf("%d objects, %d of them in plaintext, want %d and %d", f.Objects, f.Resources[0].InTheClear, n+1, n-1)
	}
	bed.Observe("%d objects read once each during a compaction; resumed from %s", f.Objects, f.Source.Resumptions[0].FromKey)
}

// An operator audits an etcd with TLS and users, as in production.
func TestSecuredEtcd(t *testing.T) {
	bed := testbed.New(t, &report, "2 audit with TLS and a user")
	cert, key := bed.IssueClient("root")
	certFile, keyFile := bed.Write("client.pem", cert), bed.Write("client.key", key)
	password := bed.Write("password", "s3cret-of-etcd\n")
	serverCert, serverKey := issueServer(t, bed)
	client := fmt.Sprintf("https://127.0.0.1:%d", bed.FreePort())
	peer := fmt.Sprintf("http://127.0.0.1:%d", bed.FreePort())
	server := bed.NewServer("etcd", bed.Tool("etcd"),
		"--name=etcd", "--data-dir="+filepath.Join(bed.Dir, "etcd.data"), "--unsafe-no-fsync",
		"--listen-client-urls="+client, "--advertise-client-urls="+client,
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=etcd="+peer,
		"--cert-file="+serverCert, "--key-file="+serverKey, "--client-cert-auth", "--trusted-ca-file="+bed.CAFile())
	server.Start()
	tls := []string{"--endpoints", client, "--cacert", serverCert, "--cert", certFile, "--key", keyFile}
	bed.Await(30*time.Second, "etcd to answer", func(ctx context.Context) error {
		return exec.CommandContext(ctx, bed.Tool("etcdctl"), append(tls, "endpoint", "health")...).Run()
	})
	with := func(args ...string) []string { return append(append([]string(nil), tls...), args...) }
	const sealed = "k8s:enc:aesgcm:v1:k:not random: what has a NUL cannot be an argument"
	etcdctl(t, bed, with("put", "/registry/secrets/default/a", sealed)...)
	if _, code := audit(t, tls...); code != 0 {
		t.Errorf("with the certificates: exit code %d, want 0", code)
	}
	for _, args := range [][]string{{"user", "add", "root:s3cret-of-etcd"}, {"user", "grant-role", "root", "root"}, {"user", "add", "stranger:nothing"}, {"auth", "enable"}} {
		etcdctl(t, bed, with(args...)...)
	}
	if f, code := audit(t, with("--user", "root", "--password-file", password)...); code != 0 || f.Objects != 1 || f.Source.OutsideUnread {
		t.Errorf("with a user: %d objects, exit code %d, outside unread: %t, want 1, 0 and false", f.Objects, code, f.Source.OutsideUnread)
	}
	wrong := bed.Write("wrong", "nothing")
	// A user of kube-apiserver's prefix reads that, and the audit says what it has not seen.
	asRoot := []string{"--user", "root:s3cret-of-etcd"}
	for _, args := range [][]string{
		{"role", "add", "registry"}, {"role", "grant-permission", "registry", "--prefix=true", "read", "/registry/"},
		{"user", "add", "reader:s3cret-of-etcd"}, {"user", "grant-role", "reader", "registry"},
	} {
		etcdctl(t, bed, with(append(args, asRoot...)...)...)
	}
	if f, code := audit(t, with("--user", "reader", "--password-file", password)...); code != 0 || f.Objects != 1 || !f.Source.OutsideUnread {
		t.Errorf("with a user of the prefix: %d objects, exit code %d, outside unread: %t, want 1, 0 and true", f.Objects, code, f.Source.OutsideUnread)
	}
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"a user without permissions": {with("--user", "stranger", "--password-file", wrong), "check --user and --password-file"},
		"a wrong password":           {with("--user", "root", "--password-file", wrong), "check --user and --password-file"},
		"no client certificate":      {[]string{"--endpoints", client, "--cacert", serverCert}, "check --cacert, --cert and --key"},
		"an unknown CA":              {[]string{"--endpoints", client, "--cert", certFile, "--key", keyFile}, "check --cacert, --cert and --key"},
		"no TLS":                     {[]string{"--endpoints", "http" + strings.TrimPrefix(client, "https")}, "--cacert, --cert and --key"},
	} {
		began := time.Now()
		_, stderr, code := run(t, test.args...)
		if code != 1 || !strings.Contains(stderr, test.want) || strings.Contains(stderr, "s3cret") {
			t.Errorf("%s: exit code %d, %s, want 1 and %q", name, code, stderr, test.want)
		}
		bed.Observe("%s: after %s: %s", name, time.Since(began).Round(100*time.Millisecond), strings.TrimSpace(stderr))
	}
}

// An audit of a backup shows the same as one of etcd, regardless of earlier writes.
func TestSnapshotOfEtcd(t *testing.T) {
	bed := testbed.New(t, &report, "3 audit of a backup")
	e := bed.StartEtcd()
	fill(t, e, 300)
	for i := range 100 {
		if err := put(t.Context(), e, fmt.Sprintf("/registry/secrets/default/%06d", i), storedtest.Secretbox("k")); err != nil {
			t.Fatal(err)
		}
	}
	for i := 290; i < 300; i++ {
		etcdctl(t, bed, "--endpoints", e.URL, "del", fmt.Sprintf("/registry/secrets/default/%06d", i))
	}
	if err := gateway(t.Context(), e, "kv/compaction", map[string]any{"revision": 350}); err != nil {
		t.Fatal(err)
	}
	live, _ := audit(t, "--endpoints", e.URL)
	backup := filepath.Join(bed.Dir, "backup.db")
	etcdctl(t, bed, "--endpoints", e.URL, "snapshot", "save", backup)
	saved, code := audit(t, "--snapshot", backup)
	if code != 3 || saved.Source.SHA256 != "ok" || saved.Source.Revision != live.Source.Revision {
		t.Errorf("exit code %d, sha256 %q, revision %d; want 3, ok and %d", code, saved.Source.SHA256, saved.Source.Revision, live.Source.Revision)
	}
	if saved.Objects != 290 || saved.Resources[0].InTheClear != 190 || fmt.Sprint(saved.Resources[0].Groups) != fmt.Sprint(live.Resources[0].Groups) {
		t.Errorf("the backup has %+v, etcd %+v", saved.Resources, live.Resources)
	}
	// A member's own database, while the member runs and after it has stopped.
	database := filepath.Join(bed.Dir, "etcd.data", "member", "snap", "db")
	if _, stderr, code := run(t, "--snapshot", database); code != 1 || !strings.Contains(stderr, "in use by a running etcd") {
		t.Errorf("the database in use: exit code %d, %s", code, stderr)
	}
	e.Stop()
	if stopped, _ := audit(t, "--snapshot", database); stopped.Objects != 290 || stopped.Source.SHA256 != "missing" {
		t.Errorf("the database of a stopped etcd: %d objects, sha256 %q", stopped.Objects, stopped.Source.SHA256)
	}
}
