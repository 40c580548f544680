// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/trousseau-io/trousseau/internal/ctl/fleet"
	"github.com/trousseau-io/trousseau/internal/ctl/text"
	"github.com/trousseau-io/trousseau/internal/testkit/loopback"
	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares a text with a file in testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := "testdata/status/" + name + ".txt"
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
}

// now is the time of the reports in these tests.
var now = time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)

// state returns a healthy node.
func state() *fleet.State {
	return &fleet.State{
		Healthy: true, Generation: 4,
		Key: fleet.Key{
			Hash: "sha256:1f0c9a4e73b2d5f8a6c4e2b0918273645546372819a0bfcedb0817263544fe0d",
			Name: "trousseau-kms-vault", Version: 3, Created: now.Add(-12 * 24 * time.Hour),
		},
		Reload: fleet.Reload{InUse: true, Adopted: now.Add(-90 * time.Minute)},
		Token:  fleet.Token{Expires: now.Add(31 * 24 * time.Hour), KeptBy: fleet.Trousseau},
		Proven: now.Add(-4 * time.Second),
		Build:  fleet.Build{Version: "v1.2.0", Revision: "0123456789abcdef0123", Go: "go1.26.8"},
	}
}

// TestStatusTable compares the whole text of several reports.
func TestStatusTable(t *testing.T) {
	one := fleet.Report{Time: now, Nodes: []fleet.Answer{{Node: "127.0.0.1:8095", State: state()}}}
	one.Judge()
	one.Plugin = &fleet.Plugin{Endpoint: "unix:///run/trousseau/kms.sock", Healthz: "ok", KeyID: "transit/trousseau-kms-vault/v3@1762000000"}

	degraded := state()
	degraded.Healthy = false
	degraded.Reasons = []string{"kek: vault at https://vault.example:8200 is sealed or has no active node: unseal it, or see whether this address is the one of the active node"}
	degraded.Reload = fleet.Reload{Class: "refused_associated_data", Adopted: now.Add(-50 * time.Hour)}
	degraded.Token = fleet.Token{Expires: now.Add(26 * time.Hour), KeptBy: fleet.NoKeeper}
	degraded.Proven = now.Add(-10 * time.Minute)
	young := state()
	young.Key.Hash = "sha256:ffffffffffffd5f8a6c4e2b0918273645546372819a0bfcedb0817263544fe0d"
	young.Key.Version, young.Key.Created = 10000, time.Time{}
	young.Token = fleet.Token{}
	young.Build.Version = "v1.3.0-rc.1-14-g81aee6e-dirty"
	empty := &fleet.State{Reasons: []string{"kek: no configuration has been read yet"}, Build: state().Build}
	names := []string{"10.100.100.101:8095", "10.100.100.102:8095", "[2001:db8:ffff:ffff::1]:8", "control-plane-3.a-long-name.example.com:8095", "10.0.0.5"}
	many := fleet.Report{Time: now, Nodes: []fleet.Answer{
		{Node: names[0], State: state()},
		{Node: names[1], State: degraded},
		{Node: names[2], State: young},
		{Node: names[3], State: empty},
		{Node: names[4], Unreachable: "connection refused: check that trousseau is running there and that this is its --ops-addr, which is 127.0.0.1 only by default"},
	}}
	many.APIServers = []fleet.APIServer{{Address: "10.100.100.101", Node: names[0]}, {Address: "10.100.100.109"}}
	many.Judge()

	for name, r := range map[string]fleet.Report{"one": one, "many": many} {
		var b bytes.Buffer
		if err := printStatus(&b, r, plainly); err != nil {
			t.Fatal(err)
		}
		plain := text.Fit(b.String(), 0)
		golden(t, name, plain)
		for line := range strings.Lines(plain) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 100 {
				t.Errorf("%s: %d columns: %s", name, n, line)
			}
		}
		var colors bytes.Buffer
		if err := printStatus(&colors, r, colored); err != nil {
			t.Fatal(err)
		}
		if c := text.Fit(colors.String(), 0); c == plain || regexp.MustCompile(`\x1b\[\d+m`).ReplaceAllString(c, "") != plain {
			t.Errorf("%s: the text in color differs: %q", name, c)
		}
	}
}

// TestStatusIsStopped checks that an interrupted survey is not reported as a
// finding.
func TestStatusIsStopped(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	nodes, err := fleet.ParseNodes([]string{"127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	if code := run(ctx, []string{"status", "127.0.0.1:1"}, nil, io.Discard, io.Discard); code != exitFailure {
		t.Errorf("exit code %d, want %d", code, exitFailure)
	}
	if err := watchStatus(ctx, io.Discard, fleet.Options{Nodes: nodes}, time.Hour); err != nil {
		t.Errorf("--watch: got %v", err)
	}
}

// vault seal | unseal | rotate does that; rotate applies to the transit key. vault
// delay DURATION delays each decryption. vault empty removes the engines. vault write PATH NAME=VALUE... works like the vault
// command.
func cmdVault(ts *testscript.TestScript, neg bool, args []string) {
	v := storyOf(ts).vault
	switch args[0] {
	case "seal":
		v.Seal()
	case "unseal":
		v.Unseal()
	case "rotate":
		v.Transit().Key(keyName).Rotate()
	case "delay":
		delay, err := time.ParseDuration(args[1])
		ts.Check(err)
		v.Inject(vaulttest.Fault{Match: vaulttest.Ops(vaulttest.OpDecrypt), Delay: delay})
	case "empty":
		v.Unmount("", "transit")
		v.Unmount("", "secret")
	case "deny": // until allow
		v.Inject(vaulttest.Fault{Match: vaulttest.Ops(args[1:]...), Status: http.StatusForbidden})
	case "allow":
		v.ClearFaults()
	case "write":
		writeVault(ts, args[1], args[2:])
	default:
		ts.Fatalf("vault: unknown verb %s", args[0])
	}
}

// other TEMPLATE FILE starts another Vault, and writes FILE with its address and a
// token. OTHER_OPS is a free port for the ops endpoints of the plugin that uses it.
func cmdOther(ts *testscript.TestScript, neg bool, args []string) {
	v, err := vaulttest.New(vaulttest.Options{})
	ts.Check(err)
	ts.Defer(v.Close)
	v.Advance(time.Second) // the key_ids differ only in the creation time
	v.CreateKey(keyName)
	ops, err := loopback.Reserve("")
	ts.Check(err)
	ts.Defer(ops.Release)
	ts.Setenv("OTHER_OPS", ops.Addr)
	ts.Setenv("OTHER_VAULT", v.URL())
	ts.Setenv("OTHER_TOKEN", v.KMSToken(keyName))
	cmdRender(ts, neg, args)
}

// answering ADDR waits until the node at this address is healthy.
func cmdAnswering(ts *testscript.TestScript, neg bool, args []string) {
	n, err := fleet.ParseNode(args[0])
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	last := ""
	for ctx.Err() == nil {
		s, err := n.Fetch(ctx)
		if err == nil && s.Healthy {
			return
		}
		last = fmt.Sprint(err, s.Reasons)
		time.Sleep(10 * time.Millisecond)
	}
	ts.Fatalf("answering %s: still %s", args[0], last)
}

// shows FILE PATTERN waits until a line of FILE matches.
func cmdShows(ts *testscript.TestScript, neg bool, args []string) {
	want := regexp.MustCompile("(?m)" + args[1])
	text := ""
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		content, err := os.ReadFile(ts.MkAbs(args[0]))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			ts.Check(err)
		}
		text = string(content)
		if want.MatchString(text) {
			return
		}
	}
	ts.Fatalf("shows %s: not in %s", args[1], text)
}
