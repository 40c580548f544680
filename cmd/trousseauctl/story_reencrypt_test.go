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

// storyAPIServer is the kube-apiserver of a story.
type storyAPIServer struct {
	*apiservertest.Server
	keyIDHash string // hash of the last reported key_id
	looked    int    // requests already checked by the story
}

// apiServerToken is the token in admin.conf.
const apiServerToken = "kubernetes-token"

// apiserver N starts a kube-apiserver with N Secrets under the daemon's key_id,
// and replaces a previous one. It writes admin.conf, and sets APISERVER to its URL
// and KEYID to the hash of the reported key_id. Other forms:
//
//	learns            the daemon reports its current key_id
//	[!] refuses NAME  a webhook refuses every update of the Secret; with !, no longer
//	patched N         N patches have arrived since the last patched
//	[!] holds-stale N N Secrets are not under the reported key_id
//	rewrote-each N    each Secret has been rewritten N times
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

// equal fails unless got equals the command's N; with neg, if it does.
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

// learn reads the daemon's key_id from its ops endpoints and reports it to the API
// server.
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

// refuse makes it answer as with a refusing webhook (ToStatusErr in
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
