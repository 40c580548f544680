// SPDX-License-Identifier: Apache-2.0

package encryptionconfig_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/trousseau-io/trousseau/internal/ctl/encryptionconfig"
	"github.com/trousseau-io/trousseau/internal/endpoint"
	"github.com/trousseau-io/trousseau/internal/testkit/documented"
)

// options are the options of most tests.
func options(phase encryptionconfig.Phase) encryptionconfig.Options {
	return encryptionconfig.Options{
		Resources: []string{"secrets"},
		Name:      "trousseau",
		Endpoint:  at("unix:///run/trousseau/kms.sock"),
		Phase:     phase,
	}
}

func at(text string) endpoint.Endpoint {
	e, err := endpoint.Parse(text)
	if err != nil {
		panic(err)
	}
	return e
}

// TestEdit runs testdata/edit: each file before, and the expected file byte for
// byte.
func TestEdit(t *testing.T) {
	files, err := filepath.Glob("testdata/edit/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			o, before, want := readCase(t, file)
			for _, eol := range []string{"\n", "\r\n"} {
				before := strings.ReplaceAll(before, "\n", eol)
				want := strings.ReplaceAll(want, "\n", eol)
				r, err := encryptionconfig.Edit([]byte(before), o)
				if err != nil {
					t.Fatalf("Edit: %v", err)
				}
				if string(r.Text) != want {
					t.Errorf("got %s\nwant %s", r.Text, want)
				}
				if r.Changed != (before != want) {
					t.Errorf("Changed = %v", r.Changed)
				}
			}
		})
	}
}

// TestEditWithoutLastNewline adds lines at the end of the file.
func TestEditWithoutLastNewline(t *testing.T) {
	for _, name := range []string{"write-over-plaintext", "read-behind-a-key", "another-entry", "write-after-read", "read-behind-the-only-one"} {
		o, before, want := readCase(t, "testdata/edit/"+name+".txtar")
		r, err := encryptionconfig.Edit([]byte(strings.TrimSuffix(before, "\n")), o)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := strings.TrimSuffix(string(r.Text), "\n"); got != strings.TrimSuffix(want, "\n") {
			t.Errorf("%s: got %s\nwant %s", name, got, want)
		}
	}
}

func readCase(t *testing.T, file string) (o encryptionconfig.Options, before, after string) {
	t.Helper()
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	o = options("")
	for line := range strings.Lines(string(archive.Comment)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch name {
		case "phase":
			o.Phase = encryptionconfig.Phase(value)
		case "resources":
			o.Resources = strings.Split(value, ",")
		case "name":
			o.Name = value
		case "timeout":
			if o.Timeout, err = time.ParseDuration(value); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(archive.Files) != 2 {
		t.Fatalf("%s: want before and after", file)
	}
	return o, string(archive.Files[0].Data), string(archive.Files[1].Data)
}

// TestNewIsAsDocumented compares the command's output with docs/install.md.
func TestNewIsAsDocumented(t *testing.T) {
	files, err := documented.Files("../../..")
	if err != nil {
		t.Fatal(err)
	}
	want, found := files["encryption-config.yaml"]
	if !found {
		t.Fatal("no page shows encryption-config.yaml")
	}
	r, err := encryptionconfig.New(options(encryptionconfig.Write))
	if err != nil {
		t.Fatal(err)
	}
	if string(r.Text) != want {
		t.Errorf("got %s\nwant %s", r.Text, want)
	}
}

func TestNewForReading(t *testing.T) {
	o := options(encryptionconfig.Read)
	o.Resources = []string{"*.", "deployments.apps"}
	o.Name, o.Endpoint, o.Timeout = "yes", at("unix:///@abstract"), 90*time.Second
	r, err := encryptionconfig.New(o)
	if err != nil {
		t.Fatal(err)
	}
	const want = `apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources:
  - '*.'
  - deployments.apps
  providers:
  - identity: {}
  - kms:
      apiVersion: v2
      name: "yes"
      endpoint: unix:///@abstract
      timeout: 1m30s
`
	if string(r.Text) != want {
		t.Errorf("got %s\nwant %s", r.Text, want)
	}
}

func TestParse(t *testing.T) {
	text, err := os.ReadFile("testdata/edit/wildcard.txtar")
	if err != nil {
		t.Fatal(err)
	}
	c, err := encryptionconfig.Parse(txtar.Parse(text).Files[1].Data)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range c.Entries {
		got = append(got, strings.Join(e.Resources, ",")+":")
		for _, p := range e.Providers {
			got = append(got, p.String())
		}
	}
	const want = `events: identity (plaintext) *.*: kms v2 "trousseau" kms v1 "old" identity (plaintext)`
	if s := strings.Join(got, " "); s != want {
		t.Errorf("got %s, want %s", s, want)
	}
	if k := c.Entries[1].Providers[1].KMS; k.Timeout != encryptionconfig.DefaultTimeout || k.Endpoint != "unix:///run/old.sock" {
		t.Errorf("kms v1 is %+v", k)
	}
}
