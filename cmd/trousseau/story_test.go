// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	kmsv1 "k8s.io/kms/apis/v1beta1"
	kmsapi "k8s.io/kms/apis/v2"

	"github.com/trousseau-io/trousseau/internal/testkit/loopback"
	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

// patience bounds every wait of a story.
const patience = 15 * time.Second

// story is the state of a script.
type story struct {
	dir    string
	vault  *vaulttest.Server
	key    *vaulttest.Key
	socket string
	conn   *grpc.ClientConn
	client kmsapi.KeyManagementServiceClient
	v1     kmsv1.KeyManagementServiceClient
	answer chan answer   // result of kms-background
	notify *net.UnixConn // systemd's end of NOTIFY_SOCKET
	heard  []string      // received, but not matched yet
	units  units
	method method
	https  *vaulttest.Server // a node of vault with TLS; nil unless the script starts it
}

type storyKey struct{}

// setUpStory gives each script a Vault with a transit key, a socket path and a
// free port for the ops endpoints.
func setUpStory(env *testscript.Env) error {
	v, err := vaulttest.New(vaulttest.Options{})
	if err != nil {
		return err
	}
	s := &story{dir: env.WorkDir, vault: v, key: v.CreateKey("trousseau-kms-vault")}
	env.Defer(v.Close)
	// The path of the work directory may be too long for a socket.
	short, err := os.MkdirTemp("", "kms")
	if err != nil {
		return err
	}
	env.Defer(func() { os.RemoveAll(short) })
	s.socket = filepath.Join(short, "kms.sock")
	if err := s.connect(); err != nil {
		return err
	}
	env.Defer(func() { s.conn.Close() })
	notify := filepath.Join(short, "notify.sock")
	s.notify, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"})
	if err != nil {
		return err
	}
	env.Defer(func() { s.notify.Close() })
	ops, err := loopback.Reserve("")
	if err != nil {
		return err
	}
	env.Defer(ops.Release)
	env.Setenv("VAULT", v.URL())
	_, port, _ := strings.Cut(v.Addr(), ":")
	env.Setenv("VAULT_PORT", port)
	env.Setenv("SOCKET", s.socket)
	env.Setenv("SOCKETS", short)
	env.Setenv("NOTIFY", notify)
	env.Setenv("OPS", ops.Addr)
	env.Setenv("TOKEN", v.KMSToken("trousseau-kms-vault"))
	env.Values[storyKey{}] = s
	return nil
}

// storyCommands are the scripts' commands in addition to testscript's own.
var storyCommands = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	"vault":          cmdVault,
	"token":          cmdToken,
	"render":         cmdRender,
	"auth":           cmdAuth,
	"credential":     cmdCredential,
	"certificate":    cmdCertificate,
	"tokens":         cmdTokens,
	"alive":          cmdAlive,
	"https":          cmdHTTPS,
	"agent":          cmdAgent,
	"project":        cmdProject,
	"kms":            cmdKMS,
	"kms-background": cmdKMSBackground,
	"kms-finished":   cmdKMSFinished,
	"reconnect":      cmdReconnect,
	"get":            cmdGet,
	"until":          cmdUntil,
	"appears":        cmdAppears,
	"signal":         cmdSignal,
	"notified":       cmdNotified,
	"silent":         cmdSilent,
	"unit":           cmdUnit,
}

func storyOf(ts *testscript.TestScript) *story { return ts.Value(storyKey{}).(*story) }

// vault stop | start | seal | unseal | hang | release | rotate | revoke TOKEN | asked OPERATION
func cmdVault(ts *testscript.TestScript, neg bool, args []string) {
	s := storyOf(ts)
	switch args[0] {
	case "stop":
		s.vault.Stop()
	case "start":
		ts.Check(s.vault.Start())
	case "seal":
		s.vault.Seal()
	case "unseal":
		s.vault.Unseal()
	case "hang":
		s.vault.Inject(vaulttest.Fault{Hang: true, Match: vaulttest.Ops(args[1])})
	case "release":
		s.vault.ClearFaults()
	case "rotate":
		s.key.Rotate()
	case "revoke":
		s.vault.Revoke(args[1])
	case "asked": // waits until a request is being served
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		ts.Check(s.vault.WaitInFlight(ctx, 1))
	default:
		ts.Fatalf("vault: unknown verb %s", args[0])
	}
}

// token NAME sets NAME to a new token with the minimal policy.
func cmdToken(ts *testscript.TestScript, neg bool, args []string) {
	ts.Setenv(args[0], storyOf(ts).vault.KMSToken("trousseau-kms-vault"))
}

// render TEMPLATE FILE writes FILE as Vault Agent does: to a temporary file in the
// same directory, which is then renamed. Variables come from the environment.
func cmdRender(ts *testscript.TestScript, neg bool, args []string) {
	text := os.Expand(ts.ReadFile(args[0]), ts.Getenv)
	file := ts.MkAbs(args[1])
	tmp, err := os.CreateTemp(filepath.Dir(file), "")
	ts.Check(err)
	_, err = tmp.WriteString(text)
	ts.Check(err)
	ts.Check(tmp.Close())
	ts.Check(os.Rename(tmp.Name(), file))
}

// kms status | encrypt NAME | decrypt NAME | v1-check | v1-encrypt NAME | v1-decrypt NAME
// calls the plugin and prints the answer. The result of encrypt is stored as NAME. v1 is
// KMS v1, check the health check of kube-apiserver.
func cmdKMS(ts *testscript.TestScript, neg bool, args []string) {
	text, err := storyOf(ts).call(args)
	finish(ts, neg, text, err)
}

// kms-background runs kms in the background; kms-finished waits for it.
func cmdKMSBackground(ts *testscript.TestScript, neg bool, args []string) {
	s := storyOf(ts)
	s.answer = make(chan answer, 1)
	go func() {
		text, err := s.call(args)
		s.answer <- answer{text, err}
	}()
}

func cmdKMSFinished(ts *testscript.TestScript, neg bool, args []string) {
	a := <-storyOf(ts).answer
	finish(ts, neg, a.text, a.err)
}

// reconnect makes kms use a new connection, when it is called next.
func cmdReconnect(ts *testscript.TestScript, neg bool, args []string) {
	s := storyOf(ts)
	s.conn.Close()
	ts.Check(s.connect())
}

func (s *story) connect() (err error) {
	s.conn, err = grpc.NewClient("unix://"+s.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err == nil {
		s.client, s.v1 = kmsapi.NewKeyManagementServiceClient(s.conn), kmsv1.NewKeyManagementServiceClient(s.conn)
	}
	return err
}

type answer struct {
	text string
	err  error
}

func finish(ts *testscript.TestScript, neg bool, text string, err error) {
	if err != nil {
		text = fmt.Sprintf("%s: %s", status.Code(err), status.Convert(err).Message())
	}
	fmt.Fprintln(ts.Stdout(), text)
	if neg != (err != nil) {
		ts.Fatalf("kms: %v", err)
	}
}

func (s *story) call(args []string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	switch args[0] {
	case "status":
		r, err := s.client.Status(ctx, &kmsapi.StatusRequest{})
		return fmt.Sprintf("%s %s %s", r.GetVersion(), r.GetHealthz(), r.GetKeyId()), err
	case "encrypt":
		r, err := s.client.Encrypt(ctx, &kmsapi.EncryptRequest{Uid: "story", Plaintext: []byte("the seed of " + args[1])})
		if err != nil {
			return "", err
		}
		kept := r.GetKeyId() + "\n" + string(r.GetCiphertext())
		return "under " + r.GetKeyId(), os.WriteFile(filepath.Join(s.dir, args[1]), []byte(kept), 0o600)
	case "decrypt":
		kept, err := os.ReadFile(filepath.Join(s.dir, args[1]))
		if err != nil {
			return "", err
		}
		keyID, ciphertext, _ := strings.Cut(string(kept), "\n")
		r, err := s.client.Decrypt(ctx, &kmsapi.DecryptRequest{Uid: "story", KeyId: keyID, Ciphertext: []byte(ciphertext)})
		return string(r.GetPlaintext()), err
	case "v1-check":
		r, err := s.v1.Encrypt(ctx, &kmsv1.EncryptRequest{Version: "v1beta1", Plain: []byte("ping")})
		if err != nil {
			return "", err
		}
		_, err = s.v1.Decrypt(ctx, &kmsv1.DecryptRequest{Version: "v1beta1", Cipher: r.GetCipher()})
		return "ok", err
	case "v1-encrypt":
		_, err := s.v1.Encrypt(ctx, &kmsv1.EncryptRequest{Version: "v1beta1", Plain: []byte("the seed of " + args[1])})
		return "", err
	case "v1-decrypt":
		kept, err := os.ReadFile(filepath.Join(s.dir, args[1]))
		if err != nil {
			return "", err
		}
		_, ciphertext, _ := strings.Cut(string(kept), "\n")
		r, err := s.v1.Decrypt(ctx, &kmsv1.DecryptRequest{Version: "v1beta1", Cipher: []byte(ciphertext)})
		return string(r.GetPlain()), err
	}
	return "", fmt.Errorf("unknown verb %s", args[0])
}

// get PATH prints the status code and the body of an ops endpoint.
func cmdGet(ts *testscript.TestScript, neg bool, args []string) {
	text, err := fetch(ts, args[0])
	ts.Check(err)
	fmt.Fprint(ts.Stdout(), text)
}

func fetch(ts *testscript.TestScript, path string) (string, error) {
	resp, err := http.Get("http://" + ts.Getenv("OPS") + path)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return fmt.Sprintf("%d\n%s", resp.StatusCode, body), err
}

// until PATTERN status | PATH waits until the plugin's Status, or the ops endpoint
// at PATH, matches.
func cmdUntil(ts *testscript.TestScript, neg bool, args []string) {
	want := regexp.MustCompile("(?m)" + args[0])
	s := storyOf(ts)
	var last string
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if args[1] == "status" {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			r, err := s.client.Status(ctx, &kmsapi.StatusRequest{}, grpc.WaitForReady(true))
			cancel()
			last = fmt.Sprintf("%s %s %s %v", r.GetVersion(), r.GetHealthz(), r.GetKeyId(), err)
		} else if text, err := fetch(ts, args[1]); err != nil {
			last = err.Error()
		} else {
			last = text
		}
		if want.MatchString(last) {
			return
		}
	}
	ts.Fatalf("until %s: still %s", args[0], last)
}

// [!] appears PATTERN waits until a file with a matching name exists; with !, until
// none does.
func cmdAppears(ts *testscript.TestScript, neg bool, args []string) {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if found, err := filepath.Glob(ts.MkAbs(args[0])); err == nil && neg == (len(found) == 0) {
			return
		}
	}
	ts.Fatalf("appears %s: timed out", args[0])
}

// signal NAME [N] sends a signal to the N-th background process, by default the
// first.
func cmdSignal(ts *testscript.TestScript, neg bool, args []string) {
	n := 0
	if len(args) > 1 {
		n = int(args[1][0] - '1')
	}
	ts.Check(ts.BackgroundCmds()[n].Process.Signal(unix.SignalNum("SIG" + args[0])))
}

// notified PATTERN waits for a matching message to systemd. STATUS may come before
// or after READY, so messages that do not match are kept.
func cmdNotified(ts *testscript.TestScript, neg bool, args []string) {
	want := regexp.MustCompile(args[0])
	s := storyOf(ts)
	if i := slices.IndexFunc(s.heard, want.MatchString); i >= 0 {
		s.heard = slices.Delete(s.heard, i, i+1)
		return
	}
	ts.Check(s.notify.SetReadDeadline(time.Now().Add(patience)))
	for buf := make([]byte, 4096); ; {
		n, err := s.notify.Read(buf)
		if err != nil {
			ts.Fatalf("notified %s: %v after %q", args[0], err, s.heard)
		}
		if want.Match(buf[:n]) {
			return
		}
		s.heard = append(s.heard, string(buf[:n]))
	}
}

// silent FILE... fails if a file, stdout or stderr contains a token or plaintext.
func cmdSilent(ts *testscript.TestScript, neg bool, args []string) {
	for _, name := range args {
		if _, found := storyOf(ts).vault.Leak(ts.ReadFile(name)); found {
			ts.Fatalf("%s holds a token or a plaintext", name)
		}
	}
}
