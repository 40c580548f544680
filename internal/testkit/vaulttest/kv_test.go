// SPDX-License-Identifier: Apache-2.0

package vaulttest_test

import (
	"testing"

	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

func TestKV(t *testing.T) {
	s := vaulttest.Start(t)
	root := newCaller(t, s, s.RootToken())
	root.want(404, "GET", "secret/data/trousseau/config", nil)
	root.want(200, "PUT", "secret/data/trousseau/config", fields{"data": fields{"token": "one"}})
	if got := s.PutSecret("trousseau/config", fields{"token": "two"}); got != 2 {
		t.Errorf("PutSecret: got version %d, want 2", got)
	}
	reader := newCaller(t, s, s.CreateToken(vaulttest.TokenOptions{
		Rules: vaulttest.Rules{"secret/data/trousseau/*": {"read"}},
	}).ID)
	a := reader.want(200, "GET", "secret/data/trousseau/config", nil)
	data, _ := a.Data["data"].(map[string]any)
	metadata, _ := a.Data["metadata"].(map[string]any)
	if data["token"] != "two" || metadata["version"] != 2.0 || a.MountType != "kv" {
		t.Errorf("read: got %v", a.Data)
	}
	reader.want(403, "PUT", "secret/data/trousseau/config", fields{"data": fields{}}, denied)
	reader.want(403, "GET", "secret/data/other", nil, denied)
}

func TestCheckAndSet(t *testing.T) {
	const changed = "check-and-set parameter did not match the current version"
	s := vaulttest.Start(t)
	root := newCaller(t, s, s.RootToken())
	write := func(status int, cas any, errors ...string) {
		t.Helper()
		root.want(status, "POST", "secret/data/a", fields{"options": fields{"cas": cas}, "data": fields{"cas": cas}}, errors...)
	}
	write(400, 1, changed)
	write(200, 0)
	write(400, 0, changed)
	write(400, -1, changed)
	write(400, "x", "error parsing check-and-set parameter")
	write(200, "1")
	root.want(400, "POST", "secret/data/a", fields{"options": fields{"cas": 9}}, "no data provided")
	if data := root.want(200, "GET", "secret/data/a", nil).Data["data"].(map[string]any); data["cas"] != "1" {
		t.Errorf("a refused write has changed the secret: %v", data)
	}
	if a := root.want(200, "POST", "secret/data/a", fields{"options": fields{}, "data": fields{}}); a.Data["version"] != 3.0 {
		t.Errorf("without cas: got %v", a.Data)
	}
}
