// SPDX-License-Identifier: Apache-2.0

package kms_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	kmsapi "k8s.io/kms/apis/v2"

	"github.com/trousseau-io/trousseau/internal/daemon/kms"
)

// FuzzDecrypt handles arbitrary bytes as a DecryptRequest. Values beyond
// kube-apiserver's limits never reach the KEK, and the answer does not repeat them.
func FuzzDecrypt(f *testing.F) {
	for _, req := range []*kmsapi.DecryptRequest{
		{},
		{Uid: "u", KeyId: keyID, Ciphertext: []byte("vault:v3:AAAA")},
		{KeyId: keyID, Ciphertext: make([]byte, 1025)},
		{KeyId: strings.Repeat("k", 1025), Ciphertext: []byte("c")},
		{KeyId: keyID, Ciphertext: []byte("c"), Annotations: map[string][]byte{"a.io": []byte("v")}},
		{KeyId: keyID, Ciphertext: []byte("c"), Annotations: map[string][]byte{"-": nil}},
	} {
		raw, err := proto.Marshal(req)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	k := working()
	reached := false
	k.decrypt = func(_ context.Context, id string, c []byte) ([]byte, error) {
		reached = true
		if id == "" || len(id) > 1024 || len(c) == 0 || len(c) > 1024 {
			panic("beyond the limits")
		}
		return c, nil
	}
	s := kms.New(kms.Options{KEK: k, RequestTimeout: time.Minute})
	f.Fuzz(func(t *testing.T, raw []byte) {
		var req kmsapi.DecryptRequest
		if proto.Unmarshal(raw, &req) != nil {
			return
		}
		reached = false
		resp, err := s.Decrypt(t.Context(), &req)
		switch code := status.Code(err); {
		case code == codes.OK && (!reached || string(resp.GetPlaintext()) != string(req.GetCiphertext())):
			t.Errorf("answered without the KEK: %v", resp)
		case code != codes.OK && (code != codes.InvalidArgument || reached):
			t.Errorf("refused with %v after reaching the KEK: %v", err, reached)
		}
		if id := req.GetKeyId(); err != nil && len(id) > 8 && strings.Contains(err.Error(), id) {
			t.Errorf("the error repeats the request: %v", err)
		}
	})
}
