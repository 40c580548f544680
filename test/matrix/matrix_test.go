// SPDX-License-Identifier: Apache-2.0

package main

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The page shows what results.json holds, and every test of the matrix exists.
func TestPage(t *testing.T) {
	r, err := load("results.json")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../../docs/compatibility.md")
	if err != nil {
		t.Fatal(err)
	}
	if want, err := r.page(string(page)); err != nil || want != string(page) {
		t.Errorf("docs/compatibility.md differs from results.json (%v); run make matrix", err)
	}
	for _, c := range r.Columns {
		var got, want []string
		for name, s := range c.Scenarios {
			got = append(got, name)
			if s.Result != pass && s.Reason == "" {
				t.Errorf("%s, %s: %s without a reason", c.title(), name, s.Result)
			}
		}
		for _, s := range core {
			want = append(want, s.name)
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s has %q, want %q", c.title(), got, want)
		}
	}
	var tests strings.Builder
	for _, dir := range []string{"audit", "ctl", "e2e"} {
		files, err := filepath.Glob("../" + dir + "/*_test.go")
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			tests.Write(text)
		}
	}
	for _, s := range core {
		if n := strings.Count(tests.String(), "func "+s.test+"("); n != 1 {
			t.Errorf("%s exists %d times, want once", s.test, n)
		}
	}
}

func TestRead(t *testing.T) {
	const output = `{"Action":"start","Package":"p"}
{"Action":"output","Package":"p","Test":"TestKeyRotation","Output":"    key_test.go:12: observed\n"}
{"Action":"pass","Package":"p","Test":"TestKeyRotation","Elapsed":12.5}
{"Action":"output","Package":"p","Test":"TestRotateKey","Output":"    rotatekey_test.go:80: min_decryption_version is 1, want 2\n"}
{"Action":"output","Package":"p","Test":"TestRotateKey","Output":"    server.go:80: the last of 12 lines of its log:\n"}
{"Action":"fail","Package":"p","Test":"TestRotateKey","Elapsed":3}
{"Action":"output","Package":"p","Test":"TestAuditOfACluster","Output":"    testbed.go:80: TROUSSEAU_E2E is not set\n"}
{"Action":"output","Package":"p","Test":"TestAuditOfACluster","Output":"    cluster_test.go:80: OpenBao 2.5.5 has no such thing\n"}
{"Action":"skip","Package":"p","Test":"TestAuditOfACluster","Elapsed":0.5}
{"Action":"pass","Package":"p","Test":"TestRotateKey/one","Elapsed":3}
{"Action":"run","Package":"p","Test":"TestColdStartOfEverything"}
{"Action":"fail","Package":"p","Elapsed":15}
`
	var log, out strings.Builder
	got, err := read(strings.NewReader(output), &log, &out)
	if err != nil {
		t.Fatal(err)
	}
	missing := result{Result: none, Reason: "it has not run to its end"}
	want := map[string]result{
		"set-up": missing, "monthly rotation": missing, "outage": missing, "cold start": missing, "reencrypt": missing,
		"key rotation": {Result: pass, Seconds: 12.5},
		"rotate-key":   {Result: fail, Seconds: 3, Reason: "min_decryption_version is 1, want 2"},
		"audit":        {Result: skip, Seconds: 0.5, Reason: "OpenBao 2.5.5 has no such thing"},
	}
	if !maps.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	if !strings.Contains(log.String(), "the last of 12 lines") {
		t.Errorf("the log is %q", log.String())
	}
	if c := (column{Scenarios: got}); !c.failed() {
		t.Error("the column has not failed")
	}
	if _, err := read(strings.NewReader("build failed\n"), &log, &out); err == nil {
		t.Error("what is no JSON is no error")
	}
}

func TestMerge(t *testing.T) {
	scenarios := func(s string) map[string]result {
		all := make(map[string]result)
		for _, c := range core {
			all[c.name] = result{Result: s, Seconds: 30, Reason: map[string]string{skip: "it has not it"}[s]}
		}
		return all
	}
	var r results
	for _, c := range []column{
		{Kubernetes: "1.9.1", Product: "Vault", Version: "1.21.0"},
		{Kubernetes: "1.37.2", Product: "OpenBao", Version: "2.5.5", Scenarios: scenarios(skip)},
		{Kubernetes: "1.37.2", Product: "Vault", Version: "1.8.12", Scenarios: scenarios(pass)},
		{Kubernetes: "1.37.2", Product: "Vault", Version: "1.21.4", Scenarios: scenarios(fail), Go: "go1.26.8"},
		{Kubernetes: "1.9.2", Product: "Vault", Version: "1.21.1"},
	} {
		r.merge(c)
	}
	var titles []string
	for _, c := range r.Columns {
		titles = append(titles, c.title())
	}
	want := []string{"1.37, Vault 1.21", "1.37, Vault 1.8", "1.9, Vault 1.21", "1.37, OpenBao 2.5"}
	if !slices.Equal(titles, want) {
		t.Errorf("columns %q, want %q", titles, want)
	}
	if got := r.Columns[2].Kubernetes; got != "1.9.2" {
		t.Errorf("Kubernetes %s, want the one that ran last", got)
	}
	if r.Columns[1].failed() || r.Columns[3].failed() {
		t.Error("what passed or was skipped has failed")
	}
	var b strings.Builder
	r.table(&b)
	for _, want := range []string{
		"Kubernetes              1.37.2        1.37.2         1.9.2         1.37.2\n",
		"\nset-up                    FAIL          30 s",
		"\nminutes in all             4.0           4.0",
		"\n1.37, OpenBao 2.5, audit: skip: it has not it\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not in\n%s", want, b.String())
		}
	}
	text, err := r.page("a\n" + begin + "old\n" + end + "z\n")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"a\n<!--", "\n| 1.37.2 | Vault 1.21.4 |  | 1.26.8 |  | FAIL |", "-->\nz\n", "\n- 1.37, OpenBao 2.5, audit: skip: it has not it\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	if again, err := r.page(text); err != nil || again != text {
		t.Errorf("written again: %v\n%s", err, again)
	}
	if _, err := r.page("without the lines"); err == nil {
		t.Error("a page without the lines is no error")
	}
}

func TestShort(t *testing.T) {
	if got := short(strings.Repeat("é", 160)); got != strings.Repeat("é", 160) {
		t.Errorf("%q has been cut", got)
	}
	if got := short(strings.Repeat("é", 161)); got != strings.Repeat("é", 160)+"…" {
		t.Errorf("%q has not been cut", got)
	}
}

func TestChoices(t *testing.T) {
	tools := t.TempDir()
	for _, module := range []string{"etcd", "kubernetes", "kubernetes-1.9", "kubernetes-1.36", "vault", "vault-1.9"} {
		if err := os.Mkdir(filepath.Join(tools, module), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		kube, vault, openbao string
		want                 []choice
	}{
		{"", "", "", []choice{{}, {"1.36", ""}, {"1.9", ""}, {"", "1.9"}}},
		{"", "", "/bin/bao", []choice{{}, {"1.36", ""}, {"1.9", ""}, {"", "1.9"}, {"", "/bin/bao"}}},
		{"1.36", "", "/bin/bao", []choice{{"1.36", ""}}},
		{"1.36", "1.9", "", []choice{{"1.36", "1.9"}}},
		{"", "/bin/bao", "", []choice{{"", "/bin/bao"}}},
	} {
		if got, err := choices(tools, test.kube, test.vault, test.openbao); err != nil || !slices.Equal(got, test.want) {
			t.Errorf("%+v: %q %v", test, got, err)
		}
	}
}
