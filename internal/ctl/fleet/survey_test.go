// SPDX-License-Identifier: Apache-2.0

package fleet_test

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	kmsapi "k8s.io/kms/apis/v2"

	"github.com/trousseau-io/trousseau/internal/ctl/fleet"
	"github.com/trousseau-io/trousseau/internal/endpoint"
	"github.com/trousseau-io/trousseau/internal/keyid"
	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

// TestSurvey compares three nodes during a disagreement and an outage.
func TestSurvey(t *testing.T) {
	vault, other := vaulttest.Start(t), vaulttest.Start(t)
	vault.CreateKey("kek")
	other.CreateKey("kek").Rotate()
	var daemons []*daemon
	var addrs []string
	for _, v := range []*vaulttest.Server{vault, vault, other} {
		d := start(t, v, "v1")
		d.configure("kek", v.KMSToken("kek"))
		d.until("it is healthy", healthy)
		daemons = append(daemons, d)
		addrs = append(addrs, d.addr)
	}

	agreed := fleet.Survey(t.Context(), fleet.Options{Nodes: nodes(t, addrs[:2]...)})
	if !agreed.OK() || len(agreed.KeyIDs) != 1 || !slices.Equal(agreed.KeyIDs[0].Nodes, addrs[:2]) || len(agreed.Findings) != 0 {
		t.Errorf("two that agree: %+v", agreed)
	}

	// The differing node comes first in the list, but the majority is still named
	// first.
	r := fleet.Survey(t.Context(), fleet.Options{Nodes: nodes(t, addrs[2], addrs[0], addrs[1])})
	if r.OK() || len(r.KeyIDs) != 2 || !slices.Equal(r.KeyIDs[0].Nodes, addrs[:2]) || r.KeyIDs[1].Version != 2 {
		t.Errorf("one that differs: %+v", r)
	}
	short := func(i int) string { return r.KeyIDs[i].Hash[:len("sha256:")+12] }
	want := "The nodes disagree on key_id: " + short(0) + "… (kek version 1) on " + addrs[0] + ", " + addrs[1] + "; " + short(1) + "… (kek version 2) on " + addrs[2] + "."
	if len(r.Findings) != 1 || r.Findings[0].ID != "key-ids-differ" || r.Findings[0].Text != want {
		t.Errorf("got %+v\nwant %q", r.Findings, want)
	}
	for i, a := range r.Nodes {
		if want := []string{addrs[2], addrs[0], addrs[1]}[i]; a.Node != want || a.Health() != "healthy" {
			t.Errorf("node %d: %s is %s, want %s", i, a.Node, a.Health(), want)
		}
	}

	other.Seal()
	daemons[2].until("it is degraded", func(s fleet.State) bool { return !s.Healthy })
	r = fleet.Survey(t.Context(), fleet.Options{Nodes: nodes(t, addrs[2])})
	if r.OK() || r.Nodes[0].Health() != "degraded" || len(r.Findings) != 1 || r.Findings[0].ID != "node-unhealthy" || !strings.Contains(r.Findings[0].Text, "sealed") {
		t.Errorf("degraded: %+v", r)
	}

	const unused = "127.0.0.1:1"
	r = fleet.Survey(t.Context(), fleet.Options{Nodes: nodes(t, addrs[0], unused)})
	if r.OK() || r.Nodes[1].Health() != "unreachable" || !strings.HasPrefix(r.Nodes[1].Unreachable, "connection refused") || len(r.KeyIDs) != 1 ||
		len(r.Findings) != 1 || r.Findings[0].ID != "node-unreachable" || r.Findings[0].Subject != unused {
		t.Errorf("unreachable: %+v", r)
	}
}

// TestSurveyIsBounded has more nodes than are asked concurrently, none of which
// answers.
func TestSurveyIsBounded(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	var all []fleet.Node
	for range 40 {
		all = append(all, node(t, silent.Addr().String()))
	}
	began := time.Now()
	r := fleet.Survey(t.Context(), fleet.Options{Nodes: all, Timeout: 50 * time.Millisecond})
	if took := time.Since(began); took > patience {
		t.Errorf("took %s", took)
	}
	for _, a := range r.Nodes {
		if !strings.HasPrefix(a.Unreachable, "no answer in time") {
			t.Fatalf("got %+v", a)
		}
	}
}

// TestPlugin asks a socket, beside a node with the same or another key_id.
func TestPlugin(t *testing.T) {
	vault := vaulttest.Start(t)
	vault.CreateKey("kek")
	d := start(t, vault, "v1")
	d.configure("kek", vault.KMSToken("kek"))
	d.until("it is healthy", healthy)
	keyID, err := d.kek.Status()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, c := range []struct {
		name        string
		answer      *kmsapi.StatusResponse
		id, problem string
	}{
		{"same", &kmsapi.StatusResponse{Version: "v2", Healthz: "ok", KeyId: keyID}, "", ""},
		{"another", &kmsapi.StatusResponse{Version: "v2", Healthz: "ok", KeyId: "transit/kek/v7"}, "plugin-not-a-node",
			" is none of these nodes: the hash of its key_id is " + keyid.Hash("transit/kek/v7") + "."},
		{"ill", &kmsapi.StatusResponse{Version: "v2", Healthz: "no disk", KeyId: keyID}, "plugin-unhealthy", ` reports its health as "no disk", not ok.`},
		{"error", nil, "plugin-unavailable", " does not answer Status: Unavailable: vault is away"},
	} {
		t.Run(c.name, func(t *testing.T) {
			socket := filepath.Join(dir, c.name)
			serve(t, socket, c.answer)
			r := surveyWith(t, d, "unix://"+socket)
			if c.problem == "" {
				if !r.OK() || r.Plugin.KeyID != keyID || r.Plugin.Hash != r.Nodes[0].State.Key.Hash || r.Plugin.Error != "" {
					t.Errorf("got %+v of %+v", r.Plugin, r)
				}
				return
			}
			if r.OK() || len(r.Findings) != 1 || r.Findings[0].ID != c.id || r.Findings[0].Text != "The plugin at unix://"+socket+c.problem {
				t.Errorf("got %+v, want %s: %q", r.Findings, c.id, c.problem)
			}
		})
	}
	r := surveyWith(t, d, "unix://"+dir+"/none")
	if want := "The plugin at unix://" + dir + "/none does not answer Status: connecting to unix://" + dir + "/none: no such file or directory; start the plugin on this host, or give the endpoint that is in EncryptionConfiguration"; r.OK() || len(r.Findings) != 1 || r.Findings[0].Text != want {
		t.Errorf("got %+v, want %q", r.Findings, want)
	}
}

func surveyWith(t *testing.T, d *daemon, socket string) fleet.Report {
	t.Helper()
	e, err := endpoint.Parse(socket)
	if err != nil {
		t.Fatal(err)
	}
	return fleet.Survey(t.Context(), fleet.Options{Nodes: nodes(t, d.addr), Endpoint: &e})
}

// plugin answers Status with a given response, or an error if there is none.
type plugin struct {
	kmsapi.UnimplementedKeyManagementServiceServer
	answer *kmsapi.StatusResponse
}

func (p plugin) Status(context.Context, *kmsapi.StatusRequest) (*kmsapi.StatusResponse, error) {
	if p.answer == nil {
		return nil, status.Error(codes.Unavailable, "vault is away")
	}
	return p.answer, nil
}

func serve(t *testing.T, socket string, answer *kmsapi.StatusResponse) {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	kmsapi.RegisterKeyManagementServiceServer(s, plugin{answer: answer})
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
}

// TestSince compares consecutive reports and checks the texts about the difference.
func TestSince(t *testing.T) {
	good := func() fleet.Report {
		s := fleet.State{
			Healthy: true, Generation: 1, Key: fleet.Key{Hash: "sha256:aa", Name: "kek", Version: 1},
			Reload: fleet.Reload{InUse: true}, Token: fleet.Token{AccessorHash: "a", KeptBy: fleet.Trousseau},
			Build: fleet.Build{Version: "v1"},
		}
		return fleet.Report{Nodes: []fleet.Answer{{Node: "one", State: &s}}, Plugin: &fleet.Plugin{Endpoint: "unix:///s", Healthz: "ok", KeyID: "k"}}
	}
	for _, c := range []struct {
		name   string
		change func(r *fleet.Report, s *fleet.State)
		want   []string
	}{
		{"time alone", func(_ *fleet.Report, s *fleet.State) { s.Proven = time.Now(); s.Token.Expires = time.Now() }, nil},
		{"degraded", func(_ *fleet.Report, s *fleet.State) { s.Healthy, s.Reasons = false, []string{"kek: sealed"} }, []string{"one: degraded: kek: sealed"}},
		{"unreachable", func(r *fleet.Report, _ *fleet.State) { r.Nodes[0] = fleet.Answer{Node: "one", Unreachable: "refused"} }, []string{"one: unreachable: refused"}},
		{"rotation", func(_ *fleet.Report, s *fleet.State) {
			s.Generation, s.Key = 2, fleet.Key{Hash: "sha256:bb", Name: "kek", Version: 2}
		}, []string{"one: key_id sha256:bb, kek version 2, generation 2, was 1"}},
		{"reload", func(_ *fleet.Report, s *fleet.State) { s.Reload = fleet.Reload{Class: "config"} }, []string{"one: reload failed: config"}},
		{"token", func(_ *fleet.Report, s *fleet.State) {
			s.Token = fleet.Token{AccessorHash: "b", KeptBy: fleet.NoKeeper}
		},
			[]string{"one: token changed, token is not renewed"}},
		{"build", func(_ *fleet.Report, s *fleet.State) { s.Build.Version = "v2" }, []string{"one: build v2"}},
		{"plugin", func(r *fleet.Report, _ *fleet.State) { r.Plugin.Error = "gone" }, []string{"unix:///s: gone, was ok k"}},
		{"not found", func(r *fleet.Report, _ *fleet.State) { *r = fleet.Report{Err: errors.New("no pods")} }, []string{"no pods"}},
		{"another pod", func(r *fleet.Report, _ *fleet.State) { r.Nodes[0].Node = "two" }, []string{"two: healthy", "one: no longer a node"}},
		{"disagreement", func(r *fleet.Report, _ *fleet.State) { r.KeyIDs = make([]fleet.KeyID, 2) }, []string{"the nodes disagree on key_id"}},
	} {
		before, after := good(), good()
		c.change(&after, after.Nodes[0].State)
		if got := after.Since(before); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
		if back := before.Since(after); (len(back) > 0) != (len(c.want) > 0) {
			t.Errorf("%s, and back: got %q", c.name, back)
		}
	}
}
