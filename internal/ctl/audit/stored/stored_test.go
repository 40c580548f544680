// SPDX-License-Identifier: Apache-2.0

package stored_test

import (
	"bytes"
	"strings"
	"testing"

	kmstypes "k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2/v2"

	"github.com/trousseau-io/trousseau/internal/ctl/audit/stored"
	"github.com/trousseau-io/trousseau/internal/seed"
	"github.com/trousseau-io/trousseau/internal/testkit/storedtest"
)

var wrapped = seed.Wrapped{KeyID: "transit/kms/v1", Ciphertext: []byte("vault:v1:abc")}

func TestForms(t *testing.T) {
	tests := map[string]struct {
		value []byte
		form  stored.Form
		name  string
	}{
		"protobuf":         {storedtest.Protobuf(), stored.Protobuf, ""},
		"json":             {storedtest.JSON(), stored.JSON, ""},
		"json after space": {[]byte("\n {}"), stored.JSON, ""},
		"cbor":             {storedtest.CBOR(), stored.CBOR, ""},
		"text":             {[]byte("hello"), stored.Other, ""},
		"empty":            {nil, stored.Other, ""},
		"nearly encrypted": {[]byte("k8s:enc"), stored.Other, ""},
		"aescbc":           {storedtest.AESCBC("key1"), stored.AESCBC, "key1"},
		"aesgcm":           {storedtest.AESGCM("key1"), stored.AESGCM, "key1"},
		"secretbox":        {storedtest.Secretbox("key1"), stored.Secretbox, "key1"},
		"kms v1":           {storedtest.KMSv1("old", wrapped.Ciphertext), stored.KMSv1, "old"},
		"kms v2":           {storedtest.KMSv2("trousseau", wrapped), stored.KMSv2, "trousseau"},
		"a DEK":            {storedtest.KMSv2Object("p", &kmstypes.EncryptedObject{EncryptedData: make([]byte, 28), KeyID: "1", EncryptedDEKSource: []byte("x")}), stored.KMSv2, "p"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			v := stored.Parse(test.value)
			if v.Form != test.form || v.Name != test.name || v.Problem != "" {
				t.Errorf("got %s %q (%s), want %s %q", v.Form, v.Name, v.Problem, test.form, test.name)
			}
			if v.Form.Clear() != stored.IsClear(test.value) {
				t.Errorf("Clear says %t, IsClear the opposite", v.Form.Clear())
			}
			if (v.Object != nil) != (test.form == stored.KMSv2) {
				t.Errorf("the object is %v", v.Object)
			}
			if kms := test.form == stored.KMSv1 || test.form == stored.KMSv2; (len(v.Wrapped) > 0) != kms {
				t.Errorf("wrapped %q", v.Wrapped)
			}
		})
	}
}

// The original Trousseau 2.0 encoded what Vault gave it.
func TestWrappedByTheOriginal(t *testing.T) {
	v := stored.Parse(storedtest.KMSv1("vaultprovider", []byte("awskms:-:AQICAHg=\nvault:-:dmF1bHQ6djE6YWJj\n")))
	if string(v.Wrapped) != "vault:v1:abc" {
		t.Errorf("wrapped %q, want vault:v1:abc", v.Wrapped)
	}
}

// Values that kube-apiserver could not read with any key are malformed, and the
// reason does not reveal the content.
func TestMalformed(t *testing.T) {
	object := func(change func(*kmstypes.EncryptedObject)) []byte {
		o := &kmstypes.EncryptedObject{
			EncryptedData: bytes.Repeat([]byte("d"), 100), KeyID: "key", EncryptedDEKSource: []byte("wrapped"),
			EncryptedDEKSourceType: kmstypes.EncryptedDEKSourceType_HKDF_SHA256_XNONCE_AES_GCM_SEED,
		}
		change(o)
		return storedtest.KMSv2Object("trousseau", o)
	}
	annotated := func(name string, size int) []byte {
		return object(func(o *kmstypes.EncryptedObject) { o.Annotations = map[string][]byte{name: make([]byte, size)} })
	}
	tests := map[string]struct {
		value []byte
		want  string
	}{
		"nothing follows":     {[]byte("k8s:enc:"), "the provider after k8s:enc: is unknown"},
		"unknown provider":    {[]byte("k8s:enc:rot13:v1:k:" + storedtest.Secret), "the provider after k8s:enc: is unknown"},
		"unknown version":     {[]byte("k8s:enc:kms:v3:k:" + storedtest.Secret), "the provider after k8s:enc: is unknown"},
		"no name":             {[]byte("k8s:enc:kms:v2:" + storedtest.Secret), "no name follows k8s:enc:kms:v2:"},
		"empty name":          {[]byte("k8s:enc:aescbc:v1::" + storedtest.Secret), "no name follows k8s:enc:aescbc:v1:"},
		"cbc too short":       {storedtest.AESCBC("k")[:len("k8s:enc:aescbc:v1:k:")+16], "shorter than any encrypted data"},
		"cbc half a block":    {append(storedtest.AESCBC("k"), 1), "not a multiple of the block size"},
		"gcm too short":       {storedtest.AESGCM("k")[:len("k8s:enc:aesgcm:v1:k:")+27], "shorter than any encrypted data"},
		"secretbox too short": {storedtest.Secretbox("k")[:len("k8s:enc:secretbox:v1:k:")+39], "shorter than any encrypted data"},
		"kms v1 cut":          {storedtest.KMSv1("p", wrapped.Ciphertext)[:len("k8s:enc:kms:v1:p:")+2+len(wrapped.Ciphertext)], "shorter than any encrypted data"},
		"kms v1 empty":        {[]byte("k8s:enc:kms:v1:p:"), "shorter than any encrypted data"},
		"no protobuf":         {[]byte("k8s:enc:kms:v2:p:" + storedtest.Secret), "is not an EncryptedObject"},
		"cut":                 {object(func(*kmstypes.EncryptedObject) {})[:60], "is not an EncryptedObject"},
		"empty object":        {[]byte("k8s:enc:kms:v2:p:"), "shorter than any encrypted data"},
		"no data":             {object(func(o *kmstypes.EncryptedObject) { o.EncryptedData = nil }), "shorter than any encrypted data"},
		"data too short":      {object(func(o *kmstypes.EncryptedObject) { o.EncryptedData = make([]byte, 59) }), "shorter than any encrypted data"},
		"unknown type":        {object(func(o *kmstypes.EncryptedObject) { o.EncryptedDEKSourceType = 7 }), "encryptedDEKSourceType 7 is unknown"},
		"no seed":             {object(func(o *kmstypes.EncryptedObject) { o.EncryptedDEKSource = nil }), "no encryptedDEKSource"},
		"seed too long":       {object(func(o *kmstypes.EncryptedObject) { o.EncryptedDEKSource = make([]byte, 1025) }), "longer than 1024 bytes"},
		"no key_id":           {object(func(o *kmstypes.EncryptedObject) { o.KeyID = "" }), "no key_id"},
		"key_id too long":     {object(func(o *kmstypes.EncryptedObject) { o.KeyID = strings.Repeat("x", 1025) }), "key_id is longer than 1024 bytes"},
		"unqualified":         {annotated("name", 1), "not a fully qualified domain name"},
		"upper case":          {annotated("Name.example.com", 1), "not a fully qualified domain name"},
		"annotations large":   {annotated("name.example.com", 32<<10), "longer than 32768 bytes"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			v := stored.Parse(test.value)
			if v.Form != stored.Malformed || !strings.Contains(v.Problem, test.want) {
				t.Errorf("got %s (%s), want it malformed, with %q", v.Form, v.Problem, test.want)
			}
			if strings.Contains(v.Problem, storedtest.Secret) {
				t.Errorf("the problem reveals the content: %s", v.Problem)
			}
		})
	}
}

func TestResources(t *testing.T) {
	tests := map[string]string{
		"/registry/secrets/default/a":                                    "secrets",
		"/registry/secrets/kube-system/secrets":                          "secrets",
		"/registry/namespaces/default":                                   "namespaces",
		"/registry/services/specs/default/kubernetes":                    "services",
		"/registry/services/endpoints/default/kubernetes":                "endpoints",
		"/registry/minions/node-1":                                       "nodes",
		"/registry/controllers/default/a":                                "replicationcontrollers",
		"/registry/ingress/default/a":                                    "ingresses",
		"/registry/deployments/default/a":                                "deployments",
		"/registry/ranges/serviceips":                                    "ranges",
		"/registry/example.com/widgets/default/a":                        "widgets.example.com",
		"/registry/apiregistration.k8s.io/apiservices/v1.":               "apiservices.apiregistration.k8s.io",
		"/registry/apiextensions.k8s.io/customresourcedefinitions/a.b.c": "customresourcedefinitions.apiextensions.k8s.io",
		"/registry/": "",
	}
	for key, want := range tests {
		if got := stored.Resource("/registry/", key); got != want {
			t.Errorf("%s: got %q, want %q", key, got, want)
		}
	}
}

// What follows the resource in a key is the object.
func TestObjects(t *testing.T) {
	tests := map[string]string{
		"/registry/secrets/default/a":                                    "default/a",
		"/registry/namespaces/default":                                   "default",
		"/registry/services/specs/default/kubernetes":                    "default/kubernetes",
		"/registry/minions/node-1":                                       "node-1",
		"/registry/example.com/widgets/default/a":                        "default/a",
		"/registry/apiextensions.k8s.io/customresourcedefinitions/a.b.c": "a.b.c",
		"/registry/secrets":                                              "",
	}
	for key, want := range tests {
		if _, got := stored.Split("/registry/", key); got != want {
			t.Errorf("%s: got %q, want %q", key, got, want)
		}
	}
}

// A resource's objects are found under its storage prefix.
func TestPrefixes(t *testing.T) {
	tests := map[string]string{
		"secrets":             "/registry/secrets/",
		"services":            "/registry/services/specs/",
		"endpoints":           "/registry/services/endpoints/",
		"nodes":               "/registry/minions/",
		"deployments.apps":    "/registry/deployments/",
		"widgets.example.com": "/registry/example.com/widgets/ /registry/widgets/",
	}
	for resource, want := range tests {
		prefixes := stored.Prefixes("/registry/", resource)
		if got := strings.Join(prefixes, " "); got != want {
			t.Errorf("%s: got %s, want %s", resource, got, want)
		}
		name, _, _ := strings.Cut(resource, ".")
		for _, p := range prefixes {
			if got := stored.Resource("/registry/", p+"default/a"); !strings.HasPrefix(got, name) {
				t.Errorf("%s is stored under %s, which is recognized as %s", resource, p, got)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, value := range [][]byte{storedtest.Protobuf(), storedtest.AESCBC("k"), storedtest.KMSv1("p", wrapped.Ciphertext), storedtest.KMSv2("p", wrapped)} {
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		v := stored.Parse(value)
		if (v.Form == stored.Malformed) != (v.Problem != "") {
			t.Errorf("form %s with problem %q", v.Form, v.Problem)
		}
		if v.Form.Clear() != stored.IsClear(value) {
			t.Error("Clear and IsClear do not agree")
		}
	})
}
