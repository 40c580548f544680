// SPDX-License-Identifier: Apache-2.0

package testbed

import (
	"context"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Etcd is a single etcd. Its data survives a restart.
type Etcd struct {
	*Server
	// URL is the client address.
	URL string
	// CertFile and KeyFile are the client certificate and key; "" if none is needed.
	CertFile, KeyFile string

	bed *Bed
}

// StartEtcd starts an etcd and waits until it answers. It does not sync data to
// disk, so data survives the end of the process but not a crash of the machine.
func (b *Bed) StartEtcd() *Etcd {
	b.t.Helper()
	e := &Etcd{bed: b, URL: "http://" + b.freeAddr()}
	e.startAt(e.URL)
	return e
}

// StartSecureEtcd is StartEtcd with TLS, listening on the given host:port addresses
// of the loopback interface. Clients need a certificate of the bed's CA.
func (b *Bed) StartSecureEtcd(addrs ...string) *Etcd {
	b.t.Helper()
	serverCert, serverKey := b.issue("etcd")
	cert, key := b.IssueClient("root")
	e := &Etcd{
		bed: b, URL: "https://" + addrs[0],
		CertFile: b.Write("etcd-client.pem", cert), KeyFile: b.Write("etcd-client.key", key),
	}
	e.startAt("https://"+strings.Join(addrs, ",https://"),
		"--cert-file="+serverCert, "--key-file="+serverKey, "--client-cert-auth", "--trusted-ca-file="+b.ca.File,
		"--client-cert-file="+e.CertFile, "--client-key-file="+e.KeyFile) // etcd's gateway is a client too
	return e
}

func (e *Etcd) startAt(urls string, flags ...string) {
	b := e.bed
	b.t.Helper()
	peer := "http://" + b.freeAddr()
	e.Server = b.newServer("etcd", b.tool("etcd"), append([]string{
		"--name=etcd", "--data-dir=" + filepath.Join(b.Dir, "etcd.data"), "--unsafe-no-fsync",
		"--listen-client-urls=" + urls, "--advertise-client-urls=" + urls,
		"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer, "--initial-cluster=etcd=" + peer,
	}, flags...)...)
	e.Start()
	e.AwaitHealthy()
}

// AwaitHealthy waits until etcd answers.
func (e *Etcd) AwaitHealthy() {
	e.bed.t.Helper()
	e.bed.Await(30*time.Second, "etcd to answer", func(ctx context.Context) error {
		_, err := e.ctl(ctx, "endpoint", "health")
		return err
	})
}

// List returns all keys and values under a prefix such as /registry/secrets/.
func (e *Etcd) List(prefix string) map[string][]byte {
	e.bed.t.Helper()
	out, err := e.ctl(e.bed.t.Context(), "get", prefix, "--prefix", "--write-out=json")
	if err != nil {
		e.bed.t.Fatal(err)
	}
	var answer struct {
		KVs []struct{ Key, Value []byte }
	}
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		e.bed.t.Fatalf("reading etcdctl's output: %v", err)
	}
	values := make(map[string][]byte)
	for _, kv := range answer.KVs {
		values[string(kv.Key)] = kv.Value
	}
	return values
}

// Save writes a snapshot to file.
func (e *Etcd) Save(file string) {
	e.bed.t.Helper()
	if _, err := e.ctl(e.bed.t.Context(), "snapshot", "save", file); err != nil {
		e.bed.t.Fatal(err)
	}
}

func (e *Etcd) ctl(ctx context.Context, args ...string) (string, error) {
	options := []string{"--endpoints=" + e.URL}
	if e.CertFile != "" {
		options = append(options, "--cacert="+e.bed.ca.File, "--cert="+e.CertFile, "--key="+e.KeyFile)
	}
	cmd := exec.CommandContext(ctx, e.bed.tool("etcdctl"), append(options, args...)...)
	cmd.Env = e.bed.environment()
	return e.bed.command(cmd)
}
