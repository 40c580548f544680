// SPDX-License-Identifier: Apache-2.0

package testbed

import (
	"context"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"time"
)

// Etcd is one etcd. Data survives its end.
type Etcd struct {
	*Server
	// URL is where clients connect.
	URL string

	bed *Bed
}

// StartEtcd starts an etcd and waits until it answers. It does not force its
// data to the disk: that survives the end of processes, if not of the machine.
func (b *Bed) StartEtcd() *Etcd {
	b.t.Helper()
	client, peer := "http://"+b.freeAddr(), "http://"+b.freeAddr()
	e := &Etcd{bed: b, URL: client}
	e.Server = b.newServer("etcd", b.tool("etcd"),
		"--name=etcd", "--data-dir="+filepath.Join(b.Dir, "etcd.data"), "--unsafe-no-fsync",
		"--listen-client-urls="+client, "--advertise-client-urls="+client,
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=etcd="+peer,
	)
	e.Start()
	e.AwaitHealthy()
	return e
}

// AwaitHealthy waits until etcd answers.
func (e *Etcd) AwaitHealthy() {
	e.bed.t.Helper()
	e.bed.Await(30*time.Second, "etcd to answer", func(ctx context.Context) error {
		_, err := e.ctl(ctx, "endpoint", "health")
		return err
	})
}

// List returns all values under a prefix such as /registry/secrets/, by key.
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
		e.bed.t.Fatalf("reading what etcdctl said: %v", err)
	}
	values := make(map[string][]byte)
	for _, kv := range answer.KVs {
		values[string(kv.Key)] = kv.Value
	}
	return values
}

func (e *Etcd) ctl(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, e.bed.tool("etcdctl"), append([]string{"--endpoints=" + e.URL}, args...)...)
	cmd.Env = e.bed.environment()
	return e.bed.command(cmd)
}
