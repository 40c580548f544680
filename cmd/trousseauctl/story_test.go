// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	kmsapi "k8s.io/kms/apis/v2"

	"github.com/trousseau-io/trousseau/internal/testkit/loopback"
	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

// patience bounds every wait of a story.
const patience = 15 * time.Second

// keyName is the transit key in each story's Vault.
const keyName = "trousseau-kms-vault"

// TestMain lets scripts execute the test binary as trousseauctl itself, also under the
// name of kubectl's plugin.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"trousseauctl": main, plugin: main})
}

// TestScripts runs the stories of testdata/script: whole processes, real sockets
// and files, and a fake Vault.
func TestScripts(t *testing.T) {
	dir := t.TempDir()
	daemon := sync.OnceValues(func() (string, error) { return dir, buildDaemon(dir) })
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		Setup:               func(env *testscript.Env) error { return setUpStory(env, daemon) },
		Cmds:                storyCommands(),
		RequireExplicitExec: true,
	})
}

// buildDaemon builds trousseau into dir. It is another program, so this test binary
// cannot run as it.
func buildDaemon(dir string) error {
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "trousseau"), "../trousseau")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("building trousseau: %w\n%s", err, out)
	}
	return nil
}

// story is the state of a script.
type story struct {
	vault     *vaulttest.Server
	socket    string
	daemon    func() (dir string, err error)
	apiServer *storyAPIServer   // nil until started
	tokens    map[string]string // tokens named by the story
}

type storyKey struct{}

func storyOf(ts *testscript.TestScript) *story { return ts.Value(storyKey{}).(*story) }

// setUpStory gives each script a Vault with a transit key, a plugin's token, an
// administrator's token, a socket path and free ports for the ops endpoints of two
// plugins.
func setUpStory(env *testscript.Env, daemon func() (string, error)) error {
	v, err := vaulttest.New(vaulttest.Options{})
	if err != nil {
		return err
	}
	env.Defer(v.Close)
	v.CreateKey(keyName)
	// The path of the work directory may be too long for a socket.
	sockets, err := os.MkdirTemp("", "kms")
	if err != nil {
		return err
	}
	env.Defer(func() { os.RemoveAll(sockets) })
	for _, name := range []string{"OPS", "OPS2"} {
		port, err := loopback.Reserve("")
		if err != nil {
			return err
		}
		env.Defer(port.Release)
		env.Setenv(name, port.Addr)
	}
	s := &story{vault: v, socket: filepath.Join(sockets, "kms.sock"), daemon: daemon, tokens: map[string]string{}}
	env.Values[storyKey{}] = s
	// With the race detector, a successful process would sleep for a second at its
	// end.
	env.Setenv("GORACE", "atexit_sleep_ms=0")
	env.Setenv("VAULT", v.URL())
	env.Setenv("TOKEN", v.KMSToken(keyName))
	env.Setenv("ADMIN", v.RootToken())
	env.Setenv("SOCKETS", sockets)
	env.Setenv("SOCKET", s.socket)
	return nil
}

// storyCommands are the scripts' commands in addition to testscript's own.
func storyCommands() map[string]func(ts *testscript.TestScript, neg bool, args []string) {
	return map[string]func(ts *testscript.TestScript, neg bool, args []string){
		"agent":         cmdAgent,
		"alive":         cmdAlive,
		"apiserver":     cmdAPIServer,
		"cluster":       cmdCluster,
		"daemon":        cmdDaemon,
		"etcd-snapshot": cmdEtcdSnapshot,
		"render":        cmdRender,
		"schema":        cmdSchema,
		"revision":      cmdRevision,
		"fits":          cmdFits,
		"healthy":       cmdHealthy,
		"login":         cmdLogin,
		"serves":        cmdServes,
		"silent":        cmdSilent,
		"token":         cmdToken,
		"vault":         cmdVault,
		"newline":       cmdNewline,
		"encrypts":      cmdEncrypts,
		"other":         cmdOther,
		"answering":     cmdAnswering,
		"shows":         cmdShows,
	}
}

// daemon makes trousseau available to exec.
func cmdDaemon(ts *testscript.TestScript, neg bool, args []string) {
	dir, err := storyOf(ts).daemon()
	ts.Check(err)
	ts.Setenv("PATH", dir+string(filepath.ListSeparator)+ts.Getenv("PATH"))
}

// render TEMPLATE FILE writes FILE with the variables of the environment.
func cmdRender(ts *testscript.TestScript, neg bool, args []string) {
	text := os.Expand(ts.ReadFile(args[0]), ts.Getenv)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(text), 0o600))
}

// [!] healthy waits until the plugin reports healthy, or with ! unhealthy with a
// reason. A plugin that has not probed yet is neither.
func cmdHealthy(ts *testscript.TestScript, neg bool, args []string) {
	conn, err := grpc.NewClient("unix://"+storyOf(ts).socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	ts.Check(err)
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for ctx.Err() == nil {
		_, err = kmsapi.NewKeyManagementServiceClient(conn).Status(ctx, &kmsapi.StatusRequest{}, grpc.WaitForReady(true))
		if ctx.Err() == nil && (err != nil) == neg && !strings.Contains(fmt.Sprint(err), "no configuration has been read yet") {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	ts.Fatalf("healthy: still %v", err)
}

// silent FILE... fails if a file, stdout or stderr contains a token or plaintext.
func cmdSilent(ts *testscript.TestScript, neg bool, args []string) {
	for _, name := range args {
		text := ts.ReadFile(name)
		secret, found := storyOf(ts).vault.Leak(text)
		if !found && strings.Contains(text, apiServerToken) {
			secret, found = apiServerToken, true
		}
		if found {
			ts.Fatalf("%s holds a token or a plaintext (%.4s…)", name, strings.ToValidUTF8(secret, "?"))
		}
	}
}
