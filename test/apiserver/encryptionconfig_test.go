// SPDX-License-Identifier: Apache-2.0

package apiserver_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	serverapi "k8s.io/apiserver/pkg/apis/apiserver"
	serverv1 "k8s.io/apiserver/pkg/apis/apiserver/v1"
	"k8s.io/apiserver/pkg/apis/apiserver/validation"
	loader "k8s.io/apiserver/pkg/server/options/encryptionconfig"
	"k8s.io/apiserver/pkg/storage/value"

	"github.com/trousseau-io/trousseau/internal/ctl/encryptionconfig"
	"github.com/trousseau-io/trousseau/internal/endpoint"
)

// cases holds the test files of package encryptionconfig.
const cases = "../../internal/ctl/encryptionconfig/testdata/"

// TestEncryptionConfigIsJudgedAlike checks that trousseauctl accepts exactly the
// files that kube-apiserver would load.
func TestEncryptionConfigIsJudgedAlike(t *testing.T) {
	t.Parallel()
	for name, text := range encryptionConfigs(t) {
		t.Run(name, func(t *testing.T) { judgedAlike(t, text) })
	}
}

// TestEncryptionConfigIsJudgedAlikeAtRandom does the same with random changes to
// valid files.
func TestEncryptionConfigIsJudgedAlikeAtRandom(t *testing.T) {
	t.Parallel()
	var good []string
	for _, text := range encryptionConfigs(t) {
		if takes(t, text) == nil {
			good = append(good, text)
		}
	}
	// Sorted, so that each run with the same seed is the same.
	slices.Sort(good)
	taken := 0
	const rounds = 3000
	for seed := range uint64(rounds) {
		r := rand.New(rand.NewPCG(seed, 5))
		text := good[r.IntN(len(good))]
		for range 1 + r.IntN(3) {
			text = mutate(r, text)
		}
		if judgedAlike(t, text) {
			taken++
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	t.Logf("%d of %d accepted", taken, rounds)
	if taken < rounds/20 || taken > rounds*19/20 {
		t.Errorf("%d of %d accepted: the test proves nothing", taken, rounds)
	}
}

// judgedAlike compares the results and reports whether both accept the text.
func judgedAlike(t *testing.T, text string) bool {
	t.Helper()
	_, ours := encryptionconfig.Parse([]byte(text))
	theirs := takes(t, text)
	switch {
	case ours == nil && theirs == nil:
		return true
	case ours == nil:
		t.Errorf("kube-apiserver refuses, trousseauctl accepts: %v\n%s", theirs, text)
	case theirs == nil && !stricter(ours):
		t.Errorf("kube-apiserver accepts, trousseauctl refuses: %v\n%s", ours, text)
	}
	return false
}

// stricter lists errors that only trousseauctl returns: for files that
// kube-apiserver accepts but that cannot be edited safely, and for content that it
// ignores.
func stricter(err error) bool {
	for _, reason := range []string{"are not supported", "a second YAML document"} {
		if strings.Contains(err.Error(), reason) {
			return true
		}
	}
	return false
}

// takes does what kube-apiserver does with the file before it calls a plugin
// (loadConfig, and for masked resources getTransformerOverridesAndKMSPluginProbes,
// both in package encryptionconfig).
func takes(t *testing.T, text string) error {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := serverapi.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	if err := serverv1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	if text == "" {
		return fmt.Errorf("the file is empty")
	}
	codecs := serializer.NewCodecFactory(scheme, serializer.EnableStrict)
	object, kind, err := codecs.UniversalDecoder().Decode([]byte(text), nil, nil)
	if err != nil {
		return err
	}
	config, ok := object.(*serverapi.EncryptionConfiguration)
	if !ok {
		return fmt.Errorf("is %v", kind)
	}
	if err := validation.ValidateEncryptionConfiguration(config, false).ToAggregate(); err != nil {
		return err
	}
	// Without plugins nothing is called: only the resources are left.
	for i := range config.Resources {
		config.Resources[i].Providers = nil
	}
	var unencrypted strings.Builder
	unencrypted.WriteString("apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n")
	for _, r := range config.Resources {
		fmt.Fprintf(&unencrypted, "- resources: [%s]\n  providers: [{identity: {}}]\n", quoted(r.Resources))
	}
	_, err = loadText(t, unencrypted.String())
	return err
}

func quoted(names []string) string {
	var all []string
	for _, n := range names {
		all = append(all, fmt.Sprintf("%q", n))
	}
	return strings.Join(all, ", ")
}

func loadText(t *testing.T, text string) (map[schema.GroupResource]value.Transformer, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "encryption.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	loaded, err := loader.LoadEncryptionConfig(t.Context(), file, false, "")
	if err != nil {
		return nil, err
	}
	return loaded.Transformers, nil
}

// encryptionConfigs returns all files of package encryptionconfig's tests.
func encryptionConfigs(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	files, err := filepath.Glob(cases + "*/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(file, cases)
		switch filepath.Ext(file) {
		case ".yaml":
			all[name] = string(text)
		case ".txtar":
			_, rest, _ := strings.Cut(string(text), "-- before --\n")
			before, after, found := strings.Cut(rest, "-- after --\n")
			if !found {
				t.Fatalf("%s: want before and after", file)
			}
			all[name+"/before"], all[name+"/after"] = before, after
		}
	}
	if len(all) < 50 {
		t.Fatalf("only %d cases in %s", len(all), cases)
	}
	return all
}

// mutate makes one change to a file that could be an operator's mistake.
func mutate(r *rand.Rand, text string) string {
	lines := strings.SplitAfter(text, "\n")
	i := r.IntN(len(lines))
	switch r.IntN(5) {
	case 0:
		return strings.Join(append(lines[:i:i], lines[i+1:]...), "")
	case 1:
		return strings.Join(append(lines[:i+1:i+1], lines[i:]...), "")
	case 2:
		j := r.IntN(len(lines))
		lines[i], lines[j] = lines[j], lines[i]
		return strings.Join(lines, "")
	case 3:
		name, _, found := strings.Cut(lines[i], ": ")
		if !found {
			return text
		}
		values := []string{"", "null", "~", "yes", "12", "1e3", "0x10", "2001-01-01", "1:30", "'12'", "{}", "[]", "[secrets]", "['*.*', events]", "'*.'", "secrets",
			"unix:///run/a.sock", "unix:", "tcp://a", "'%zz'", "v1", "v2", "3s", "-1s", "a:b", "trousseau", "c2VjcmV0IGlzIHNlY3VyZQ==", "c2VjcmV0", "'a b'", "=", "-5", "2147483648", "{identity: {}}"}
		lines[i] = name + ": " + values[r.IntN(len(values))] + "\n"
		return strings.Join(lines, "")
	}
	swaps := []string{"secrets", "events.events.k8s.io", "secrets", "*.*", "configmaps", "secrets", "events", "'*.*'", "name", "Name", "kms", "identity", "aescbc", "secretbox", "v2", "v1", "trousseau", "old", "- ", "", "  ", " ", "[", "", "providers", "resources"}
	j := r.IntN(len(swaps)/2) * 2
	return strings.Replace(text, swaps[j], swaps[j+1], 1+r.IntN(2))
}

// TestEncryptionConfigPhases takes two API servers from aescbc to trousseau, one
// after the other, with the files that trousseauctl writes. At every step each
// server reads what the other has written.
func TestEncryptionConfigPhases(t *testing.T) {
	t.Parallel()
	vault, _ := startVault(t)
	p := startHealthy(t, vault)
	e, err := endpoint.Parse(p.Socket())
	if err != nil {
		t.Fatal(err)
	}
	o := encryptionconfig.Options{Resources: []string{"secrets"}, Name: provider(t), Endpoint: e, Phase: encryptionconfig.Read}
	const before = `apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources:
  - secrets
  providers:
  - aescbc:
      keys:
      - name: key1
        secret: c2VjcmV0IGlzIHNlY3VyZQ==
  - identity: {}
`
	read, err := encryptionconfig.Edit([]byte(before), o)
	if err != nil {
		t.Fatal(err)
	}
	o.Phase = encryptionconfig.Write
	write, err := encryptionconfig.Edit(read.Text, o)
	if err != nil {
		t.Fatal(err)
	}

	var former, latter value.Transformer
	server := func(text []byte) value.Transformer {
		t.Helper()
		all, err := loadText(t, string(text))
		if err != nil {
			t.Fatalf("kube-apiserver refuses: %v\n%s", err, text)
		}
		return all[schema.GroupResource{Resource: "secrets"}]
	}
	at := value.DefaultContext("/registry/secrets/default/a")
	stored := [][]byte{[]byte("k8s\x00in plaintext")}
	check := func(step, prefix string) {
		t.Helper()
		for _, s := range []value.Transformer{former, latter} {
			v, err := s.TransformToStorage(t.Context(), []byte("k8s\x00in plaintext"), at)
			if err != nil {
				t.Fatalf("%s: writing: %v", step, err)
			}
			stored = append(stored, v)
		}
		if last := string(stored[len(stored)-2]); !strings.HasPrefix(last, prefix) {
			t.Errorf("%s: the first server writes %.30q, want %s", step, last, prefix)
		}
		for i, v := range stored {
			for j, s := range []value.Transformer{former, latter} {
				got, _, err := s.TransformFromStorage(context.WithoutCancel(t.Context()), v, at)
				if err != nil || string(got) != "k8s\x00in plaintext" {
					t.Errorf("%s: API server %d reads value %d, %.30q: %v", step, j, i, v, err)
				}
			}
		}
	}
	aescbc, kms := "k8s:enc:aescbc:v1:key1:", "k8s:enc:kms:v2:"+o.Name+":"
	former, latter = server([]byte(before)), server([]byte(before))
	check("before", aescbc)
	former = server(read.Text)
	check("the first can read", aescbc)
	latter = server(read.Text)
	check("both can read", aescbc)
	former = server(write.Text)
	check("the first writes", kms)
	latter = server(write.Text)
	check("both write", kms)
}
