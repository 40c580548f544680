// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strconv"

	"github.com/rogpeppe/go-internal/testscript"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trousseau-io/trousseau/internal/ctl/fleet"
	"github.com/trousseau-io/trousseau/internal/testkit/apiservertest"
)

// storyAPIServer is a story's kube-apiserver.
type storyAPIServer struct {
	*apiservertest.Server
	keyIDHash string // what it was told last
	looked    int    // requests that the story has looked at
}

// apiServerToken is that of admin.conf.
const apiServerToken = "kubernetes-token"

// apiserver N starts a kube-apiserver that has N Secrets under the daemon's
// key_id, in place of the one before. It writes admin.conf, and sets APISERVER to
// its URL and KEYID to the hash of the key_id that it was told. Further verbs are
// its own:
//
//	learns            the daemon tells it the key_id that it has now
//	[!] refuses NAME  a webhook refuses every update of a Secret, or no longer
//	patched N         so many patches have arrived
//	[!] holds-stale N so many Secrets are not under the key_id that it was told
//	rewrote-each N    each Secret was written so often since it was there
//
// Patched is about the time since it was last said.
func cmdAPIServer(ts *testscript.TestScript, neg bool, args []string) {
	verb, arg := args[0], ""
	if len(args) > 1 {
		arg = args[1]
	}
	if n, err := strconv.Atoi(verb); err == nil {
		startAPIServer(ts, n)
		return
	}
	s := storyOf(ts).apiServer
	switch verb {
	case "learns":
		s.learn(ts)
	case "refuses":
		s.refuse(arg, neg)
	case "patched":
		equal(ts, args, false, s.patched())
	case "holds-stale":
		equal(ts, args, neg, s.stale())
	case "rewrote-each":
		for _, secret := range s.Secrets() {
			equal(ts, append(args, secret.Name), false, secret.Rewrites)
		}
	default:
		ts.Fatalf("apiserver: unknown verb %s", verb)
	}
}

// equal fails if got is not the verb's N, or with neg if it is.
func equal(ts *testscript.TestScript, args []string, neg bool, got int) {
	want, err := strconv.Atoi(args[1])
	ts.Check(err)
	if (got == want) == neg {
		ts.Fatalf("apiserver %s: got %d", args, got)
	}
}

func startAPIServer(ts *testscript.TestScript, secrets int) {
	server, err := apiservertest.New(apiservertest.Options{TLS: true, Token: apiServerToken})
	ts.Check(err)
	ts.Defer(server.Close)
	s := &storyAPIServer{Server: server}
	storyOf(ts).apiServer = s
	s.learn(ts)
	s.Store(secrets, s.keyIDHash)
	ts.Setenv("APISERVER", s.URL())
	ts.Check(os.WriteFile(ts.MkAbs("admin.conf"), fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "%s", insecure-skip-tls-verify: true}}]
users: [{name: u, user: {token: %s}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`, s.URL(), apiServerToken), 0o600))
}

// learn reads the daemon's pages for what it would answer to Status.
func (s *storyAPIServer) learn(ts *testscript.TestScript) {
	daemon, err := fleet.ParseNode(ts.Getenv("OPS"))
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	state, err := daemon.Fetch(ctx)
	ts.Check(err)
	s.keyIDHash = state.Key.Hash
	s.Learn(s.keyIDHash)
	ts.Setenv("KEYID", s.keyIDHash)
}

// refuse has it answer as it does for a webhook (ToStatusErr in
// apiserver/pkg/admission/plugin/webhook/errors/statuserror.go).
func (s *storyAPIServer) refuse(name string, stop bool) {
	if stop {
		s.OnPatch(nil)
		return
	}
	s.OnPatch(func(_ context.Context, patched string) *metav1.Status {
		if patched != name {
			return nil
		}
		return &metav1.Status{
			Code: http.StatusForbidden, Reason: metav1.StatusReasonForbidden,
			Message: `admission webhook "owners.example.com" denied the request: it has no owner`,
		}
	})
}

func (s *storyAPIServer) patched() (n int) {
	all := s.Requests()
	for _, r := range all[s.looked:] {
		if r.Method == http.MethodPatch {
			n++
		}
	}
	s.looked = len(all)
	return n
}

func (s *storyAPIServer) stale() (n int) {
	for _, secret := range s.Secrets() {
		if secret.KeyIDHash != s.keyIDHash {
			n++
		}
	}
	return n
}
