// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/server/options/encryptionconfig"
	"k8s.io/apiserver/pkg/storage/value"
	aestransformer "k8s.io/apiserver/pkg/storage/value/encrypt/aes"
	"k8s.io/apiserver/pkg/storage/value/encrypt/envelope"
	"k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2"
	kmstypes "k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2/v2"
	kmsservice "k8s.io/kms/pkg/service"

	"github.com/trousseau-io/trousseau/internal/ctl/audit/stored"
)

const config = `apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets]
  providers: [{aescbc: {keys: [{name: cbc-key, secret: %[1]s}]}}]
- resources: [configmaps]
  providers: [{aesgcm: {keys: [{name: gcm-key, secret: %[1]s}]}}]
- resources: [serviceaccounts]
  providers: [{secretbox: {keys: [{name: box-key, secret: %[1]s}]}}]
- resources: [endpoints]
  providers: [{identity: {}}]
`

// Values written by each of kube-apiserver's providers are recognized, even for the
// shortest plaintexts.
func TestFormsOfKubeAPIServer(t *testing.T) {
	file := filepath.Join(t.TempDir(), "encryption.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, config, base64.StdEncoding.EncodeToString(make([]byte, 32))), 0o600); err != nil {
		t.Fatal(err)
	}
	loaded, err := encryptionconfig.LoadEncryptionConfig(t.Context(), file, false, "")
	if err != nil {
		t.Fatal(err)
	}
	of := func(resource string) value.Transformer {
		return loaded.Transformers[schema.GroupResource{Resource: resource}]
	}
	tests := []struct {
		transformer value.Transformer
		form        stored.Form
		name        string
	}{
		{of("secrets"), stored.AESCBC, "cbc-key"},
		{of("configmaps"), stored.AESGCM, "gcm-key"},
		{of("serviceaccounts"), stored.Secretbox, "box-key"},
		{of("endpoints"), stored.Protobuf, ""},
		{prefixed("k8s:enc:kms:v1:old:", envelope.NewEnvelopeTransformer(local{}, 0, aestransformer.NewGCMTransformer)), stored.KMSv1, "old"},
		{prefixed("k8s:enc:kms:v2:seed:", transformer(t, true)), stored.KMSv2, "seed"},
		{prefixed("k8s:enc:kms:v2:dek:", transformer(t, false)), stored.KMSv2, "dek"},
	}
	for _, test := range tests {
		for _, size := range []int{0, 1, 15, 16, 17, 1000, 100_000} {
			plain := append([]byte("k8s\x00"), make([]byte, size)...)
			text, err := test.transformer.TransformToStorage(t.Context(), plain, value.DefaultContext("/registry/x"))
			if err != nil {
				t.Fatal(err)
			}
			if v := stored.Parse(text); v.Form != test.form || v.Name != test.name {
				t.Errorf("%s %s of %d bytes: got %s %s %s", test.form, test.name, size, v.Form, v.Name, v.Problem)
			}
		}
	}
}

// Values that kube-apiserver refuses are malformed, and values that it might accept
// are not, except for data that is too short.
func TestMalformedIsWhatKubeAPIServerRefuses(t *testing.T) {
	const shortest = 32 + 12 + 16
	random := rand.New(rand.NewPCG(8, 8))
	pick := func(texts ...string) string { return texts[random.IntN(len(texts))] }
	refused := 0
	for range 20_000 {
		o := &kmstypes.EncryptedObject{
			EncryptedData:          make([]byte, shortest+random.IntN(40)),
			KeyID:                  pick("", "1", "1", "transit/kms/v1", strings.Repeat("k", 1024), strings.Repeat("k", 1025)),
			EncryptedDEKSource:     make([]byte, random.IntN(2)*random.IntN(1100)+random.IntN(2)),
			EncryptedDEKSourceType: kmstypes.EncryptedDEKSourceType(random.IntN(4) - 1),
		}
		for range random.IntN(3) {
			if o.Annotations == nil {
				o.Annotations = make(map[string][]byte)
			}
			name := pick("a.b", "a", "", "a.b.", "a..b", "A.b", "-a.b", "a-.b", "a_b.c", "a.b..", ".a.b", "1.2", strings.Repeat("a", 63)+".b",
				strings.Repeat("a", 64)+".b", strings.Repeat("a.", 126)+"a", strings.Repeat("a.", 127)+"a", "é.b", "a.b\n")
			o.Annotations[name] = make([]byte, random.IntN(2)*random.IntN(33_000))
		}
		text, err := proto.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		want := kmsv2.ValidateEncryptedObject(o)
		v := stored.Parse(append([]byte("k8s:enc:kms:v2:p:"), text...))
		if (v.Form == stored.Malformed) != (want != nil) {
			t.Fatalf("%v: kube-apiserver: %v, trousseauctl: %s %s", o, want, v.Form, v.Problem)
		}
		if want != nil {
			refused++
		}
	}
	if refused < 1000 || refused > 19_000 {
		t.Errorf("%d of 20000 were refused: the test proves nothing", refused)
	}
}

// prefixed adds a provider's prefix as kube-apiserver does.
func prefixed(prefix string, t value.Transformer) value.Transformer {
	return value.NewPrefixTransformers(nil, value.PrefixTransformer{Prefix: []byte(prefix), Transformer: t})
}

// transformer is kube-apiserver's transformer for KMS v2.
func transformer(t *testing.T, seeds bool) value.Transformer {
	t.Helper()
	inner, object, cacheKey, err := kmsv2.GenerateTransformer(t.Context(), "uid", plugin{}, seeds)
	if err != nil {
		t.Fatal(err)
	}
	state := kmsv2.State{
		Transformer: inner, EncryptedObjectKeyID: object.KeyID, EncryptedObjectEncryptedDEKSource: object.EncryptedDEKSource,
		EncryptedObjectAnnotations: object.Annotations, EncryptedObjectEncryptedDEKSourceType: object.EncryptedDEKSourceType,
		CacheKey: cacheKey, ExpirationTimestamp: kmsv2.GetNowFunc("")().AddDate(1, 0, 0),
	}
	return kmsv2.NewEnvelopeTransformer(plugin{}, "p", func() (kmsv2.State, error) { return state, nil }, "")
}

// plugin is a KMS v2 plugin that does not encrypt.
type plugin struct{}

func (plugin) Encrypt(_ context.Context, _ string, data []byte) (*kmsservice.EncryptResponse, error) {
	return &kmsservice.EncryptResponse{Ciphertext: data, KeyID: "1", Annotations: map[string][]byte{"a.b": []byte("c")}}, nil
}

func (plugin) Decrypt(_ context.Context, _ string, req *kmsservice.DecryptRequest) ([]byte, error) {
	return req.Ciphertext, nil
}

func (plugin) Status(context.Context) (*kmsservice.StatusResponse, error) {
	return &kmsservice.StatusResponse{Version: "v2", Healthz: "ok", KeyID: "1"}, nil
}

// local is a KMS v1 plugin that does not encrypt.
type local struct{}

func (local) Encrypt(data []byte) ([]byte, error) { return bytes.Clone(data), nil }
func (local) Decrypt(data []byte) ([]byte, error) { return bytes.Clone(data), nil }
