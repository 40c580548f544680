// SPDX-License-Identifier: Apache-2.0

package apiserver_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
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

// judgedAlike compares the results.
func judgedAlike(t *testing.T, text string) {
	t.Helper()
	_, ours := encryptionconfig.Parse([]byte(text))
	theirs := takes(t, text)
	switch {
	case ours == nil && theirs != nil:
		t.Errorf("kube-apiserver refuses, trousseauctl accepts: %v\n%s", theirs, text)
	case ours != nil && theirs == nil && !stricter(ours):
		t.Errorf("kube-apiserver accepts, trousseauctl refuses: %v\n%s", ours, text)
	}
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
