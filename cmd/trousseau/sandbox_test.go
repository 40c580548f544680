// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	kmsapi "k8s.io/kms/apis/v2"

	"github.com/trousseau-io/trousseau/internal/testkit/loopback"
	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

// storyCondition evaluates the scripts' own conditions.
func storyCondition(name string) (bool, error) {
	if name != "landlock" {
		return false, fmt.Errorf("unknown condition %s", name)
	}
	version, err := ll.LandlockGetABIVersion()
	return err == nil && version >= 2, nil
}

// TestSandboxUnprivileged runs the program as an unprivileged user, who does not own the /proc/PID of an
// undumpable process, and with a private CA for Vault.
func TestSandboxUnprivileged(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to start a process as another user")
	}
	const nobody = 65534
	v, err := vaulttest.New(vaulttest.Options{TLS: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	v.CreateKey("a")
	port, err := loopback.Reserve("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(port.Release)
	dir, err := os.MkdirTemp("", "kms")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for name, data := range map[string]string{
		"etc/ca.pem": string(v.CAPEM()),
		"etc/config.yaml": fmt.Sprintf("provider: vault\nvault:\n  keynames: [a]\n  address: %s\n  token: %s\n  vaultCACert: %s/etc/ca.pem\n",
			v.URL(), v.KMSToken("a"), dir),
		"run/.keep": "",
	} {
		writeFor(t, nobody, dir, name, data)
	}

	d := &process{dir: dir, ops: "http://" + port.Addr}
	// A path that is accessible to a user without access to the test binary's directory.
	cmd := exec.CommandContext(context.Background(), "/proc/self/exe")
	cmd.Args = []string{"trousseau", "--config-file-path=" + dir + "/etc/config.yaml", "--listen-addr=unix://" + dir + "/run/kms.sock", "--ops-addr=" + port.Addr}
	cmd.Stderr = d
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("the daemon ended with %v:\n%s", err, d.log())
		}
	})
	d.awaitMetric(t, `(?m)^trousseau_generation 1$`)

	conn, err := grpc.NewClient("unix://"+dir+"/run/kms.sock", grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	status, err := kmsapi.NewKeyManagementServiceClient(conn).Status(t.Context(), &kmsapi.StatusRequest{})
	if err != nil || status.GetHealthz() != "ok" {
		t.Errorf("Status: got %v, %v, want ok", status, err)
	}
	metrics := d.metrics()
	for _, name := range []string{
		"process_cpu_seconds_total", "process_max_fds", "process_open_fds", "process_resident_memory_bytes",
		"process_start_time_seconds", "process_virtual_memory_bytes",
	} {
		if !regexp.MustCompile(`(?m)^` + name + ` [0-9]`).MatchString(metrics) {
			t.Errorf("the metrics lack %s", name)
		}
	}
	memory, err := os.Stat(fmt.Sprintf("/proc/%d/mem", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if owner := memory.Sys().(*syscall.Stat_t).Uid; owner != 0 {
		t.Errorf("owner of the process's memory: got %d, want root, since it is undumpable", owner)
	}
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", cmd.Process.Pid))
	if err != nil || !regexp.MustCompile(`Max core file size +0 +0 `).Match(limits) {
		t.Errorf("got limits %s, %v, want no core files", limits, err)
	}
	if available, _ := storyCondition("landlock"); available && !strings.Contains(d.log(), "sandbox enforced") {
		t.Errorf("got log:\n%swant it to say that the sandbox is enforced", d.log())
	}
}

// writeFor writes a file in a new directory; both belong to the user.
func writeFor(t *testing.T, uid int, dir, name, data string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, uid, uid)
	})
	if err != nil {
		t.Fatal(err)
	}
}
