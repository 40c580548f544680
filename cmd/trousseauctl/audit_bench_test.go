// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/internal/ctl/audit"
	"github.com/trousseau-io/trousseau/internal/seed"
	"github.com/trousseau-io/trousseau/internal/testkit/etcdtest"
	"github.com/trousseau-io/trousseau/internal/testkit/storedtest"
)

const million = 1_000_000

// BenchmarkAuditMillion audits a snapshot with a million keys using the built
// command. It reports keys per second of wall time and of CPU time, and the peak
// memory.
func BenchmarkAuditMillion(b *testing.B) {
	file := filepath.Join(b.TempDir(), "million.db")
	if err := makeMillion(file); err != nil {
		b.Fatal(err)
	}
	info, err := os.Stat(file)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		var out, stderr bytes.Buffer
		cmd := exec.Command("trousseauctl", "audit", "--snapshot", file, "-o", "json")
		cmd.Stdout, cmd.Stderr = &out, &stderr
		began := time.Now()
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		peak, resident := memory(b, cmd.Process.Pid, ended)
		took := time.Since(began)
		var report audit.Report
		if err := json.Unmarshal(out.Bytes(), &report); err != nil {
			b.Fatalf("%v\n%s", err, stderr.String())
		}
		if report.Objects != million {
			b.Fatalf("%d objects were counted, want %d", report.Objects, million)
		}
		cpu := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		b.ReportMetric(million/took.Seconds(), "keys/s")
		b.ReportMetric(million/cpu.Seconds(), "keys/CPU-s")
		b.ReportMetric(peak, "MB-peak-RSS")
		b.ReportMetric(resident, "MB-anonymous")
		b.ReportMetric(float64(info.Size())/1e6, "MB-file")
	}
}

// memory watches a process until it ends, and returns its peak resident memory in
// megabytes, in total and without mapped files.
func memory(b *testing.B, pid int, ended <-chan error) (peak, anonymous float64) {
	for {
		select {
		case err := <-ended:
			var exit *exec.ExitError
			if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != exitFinding) {
				b.Fatal(err)
			}
			return peak, anonymous
		case <-time.After(5 * time.Millisecond):
			// Before exec, the new process shows our memory.
			if name, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err != nil || !bytes.Contains(name, []byte("--snapshot")) {
				continue
			}
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
			if err != nil {
				continue
			}
			for line := range bytes.Lines(text) {
				fields := bytes.Fields(line)
				if len(fields) < 2 {
					continue
				}
				kib, _ := strconv.ParseFloat(string(fields[1]), 64)
				switch string(fields[0]) {
				case "VmHWM:":
					peak = max(peak, kib*1024/1e6)
				case "RssAnon:":
					anonymous = max(anonymous, kib*1024/1e6)
				}
			}
		}
	}
}

// makeMillion writes a snapshot of a large cluster: 700,000 Secrets under 300 seeds
// of three key versions, 200,000 ConfigMaps and 100,000 Pods in plaintext, in random
// order, with 100,000 older values and 20,000 deletions between them.
func makeMillion(name string) error {
	f, err := etcdtest.Create(name)
	if err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(1, 2))
	seeds := make([]seed.Wrapped, 300)
	for i := range seeds {
		seeds[i] = seed.Wrapped{
			KeyID:      fmt.Sprintf("transit/trousseau-kms-vault/v%d@%d", i/100+1, 1700000000+i/100*86400),
			Ciphertext: fmt.Appendf(nil, "vault:v%d:%0100d", i/100+1, i),
		}
	}
	configMap := append(storedtest.Protobuf(), make([]byte, 500)...)
	pod := append(storedtest.Protobuf(), make([]byte, 1500)...)
	for n, i := range random.Perm(million) {
		namespace := fmt.Sprintf("namespace-%d", i%500)
		switch {
		case i < 700_000:
			key := fmt.Sprintf("/registry/secrets/%s/secret-%d", namespace, i)
			if i%10 == 0 {
				f.Put(key, storedtest.KMSv2("trousseau", seeds[0]))
			}
			f.Put(key, storedtest.KMSv2("trousseau", seeds[i%len(seeds)]))
		case i < 900_000:
			f.Put(fmt.Sprintf("/registry/configmaps/%s/configmap-%d", namespace, i), configMap)
		default:
			key := fmt.Sprintf("/registry/pods/%s/pod-%d", namespace, i)
			if i%10 < 3 {
				f.Put(key, pod)
			}
			f.Put(key, pod)
		}
		if n%50 == 0 {
			gone := fmt.Sprintf("/registry/pods/%s/gone-%d", namespace, i)
			f.Put(gone, pod)
			f.Delete(gone)
		}
	}
	return f.Snapshot()
}
