// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"bytes"
	"context"
	"net/url"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	kmsapi "k8s.io/kms/apis/v2"

	"github.com/trousseau-io/trousseau/internal/seed"
)

func messageChecks() []Check {
	return inGroup("message",
		must("message-unknown-field", "An unknown field is ignored: a newer kube-apiserver may send one.",
			"protobuf.dev/programming-guides/proto3, Unknown Fields", checkUnknownField, roundTrips),
		should("message-unknown-method", "A call of an unknown method or service fails with Unimplemented.",
			"grpc.io/docs/guides/status-codes", checkUnknownMethod, roundTrips),
		must("message-garbage", "A message that is not protobuf is an error, and does not affect others.",
			"grpc.io/docs/guides/status-codes", sampled(checkGarbage), roundTrips),
		must("message-huge", "A message of 5 MiB is an error, and does not affect others.",
			"gRPC's limit is 4 MiB; kube-apiserver's messages have at most 34 KiB", checkHuge, roundTrips),
		should("message-authority", "The socket's path is accepted as :authority: kube-apiserver up to 1.31 sends it.",
			"kubernetes/kubernetes#126930", checkAuthority, roundTrips),
	)
}

// field returns a field of a message in wire format.
func field(number protowire.Number, value []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), value)
}

// The fields of EncryptRequest and DecryptRequest.
const (
	fieldPlaintext  = 1
	fieldCiphertext = 1
	fieldUID        = 2
	fieldKeyID      = 3
	fieldUnknown    = 99
)

func checkUnknownField(ctx context.Context, s *subject) outcome {
	const advice = "Do not decode strictly."
	plaintext, unknown := s.newSeed(), field(fieldUnknown, []byte("of a later version"))
	reply, err := s.main.invoke(ctx, kmsapi.KeyManagementService_Encrypt_FullMethodName,
		slices.Concat(unknown, field(fieldPlaintext, plaintext), field(fieldUID, []byte(newUID()))))
	if err != nil {
		return broken(advice, "Encrypt: %s", said(err))
	}
	var resp kmsapi.EncryptResponse
	if err := proto.Unmarshal(reply, &resp); err != nil {
		return broken(advice, "Encrypt: the answer is not an EncryptResponse")
	}
	w := seed.Wrapped{KeyID: resp.GetKeyId(), Ciphertext: resp.GetCiphertext(), Annotations: resp.GetAnnotations()}
	request, err := proto.Marshal(decryptRequest(w))
	if err != nil {
		return broken("", "Decrypt: %v", err)
	}
	reply, err = s.main.invoke(ctx, kmsapi.KeyManagementService_Decrypt_FullMethodName, append(request, unknown...))
	if err != nil {
		return broken(advice, "Decrypt: %s", said(err))
	}
	var back kmsapi.DecryptResponse
	if err := proto.Unmarshal(reply, &back); err != nil || !bytes.Equal(back.GetPlaintext(), plaintext) {
		return broken(advice, "%v", errOtherBytes)
	}
	return pass("Encrypt and Decrypt")
}

func checkUnknownMethod(ctx context.Context, s *subject) outcome {
	methods := []string{"/v2.KeyManagementService/Conformance", "/v3.KeyManagementService/Status"}
	for _, method := range methods {
		_, err := s.main.invoke(ctx, method, nil)
		if code := status.Code(err); code != codes.Unimplemented {
			return broken("Let the gRPC library answer calls without a handler.", "%s: %s", method, code)
		}
	}
	return pass("%d methods", len(methods))
}

func checkGarbage(ctx context.Context, s *subject, _ []byte, w seed.Wrapped) outcome {
	// A string that is shorter than its length prefix, and a tag of field 0.
	cut, tag := []byte{fieldUID<<3 | byte(protowire.BytesType), 100, 'x'}, []byte{7, 7, 7}
	whole := slices.Concat(field(fieldCiphertext, w.Ciphertext), field(fieldKeyID, []byte(w.KeyID)))
	for _, m := range []struct {
		what, method string
		message      []byte
	}{
		{"a truncated EncryptRequest", kmsapi.KeyManagementService_Encrypt_FullMethodName, append(field(fieldPlaintext, s.newSeed()), cut...)},
		{"an EncryptRequest followed by garbage", kmsapi.KeyManagementService_Encrypt_FullMethodName, append(field(fieldPlaintext, s.newSeed()), tag...)},
		{"a truncated DecryptRequest", kmsapi.KeyManagementService_Decrypt_FullMethodName, append(slices.Clone(whole), cut...)},
		{"a DecryptRequest followed by garbage", kmsapi.KeyManagementService_Decrypt_FullMethodName, append(slices.Clone(whole), tag...)},
		{"random bytes", kmsapi.KeyManagementService_Decrypt_FullMethodName, append(slices.Clone(tag), s.newSeed()...)},
	} {
		if _, err := s.main.invoke(ctx, m.method, m.message); err == nil {
			return broken("Refuse a message that cannot be decoded as a whole.", "%s is answered", m.what)
		}
	}
	return unharmed(ctx, s.main)
}

func checkHuge(ctx context.Context, s *subject) outcome {
	const size = 5 << 20
	_, err := s.main.invoke(ctx, kmsapi.KeyManagementService_Encrypt_FullMethodName, field(fieldPlaintext, bytes.Repeat(s.newSeed(), size/32)))
	if err == nil {
		return broken("Keep gRPC's message size limit, or set a lower one.", "it is encrypted")
	}
	return unharmed(ctx, s.main)
}

// adviceIsolate is for a plugin that fails after a bad request.
const adviceIsolate = "A bad request must not affect others: read the plugin's log."

// unharmed is the outcome after requests that were correctly refused.
func unharmed(ctx context.Context, c *caller) outcome {
	if err := c.roundTrip(ctx); err != nil {
		return broken(adviceIsolate, "a valid request after it fails: %v", err)
	}
	return pass("refused, and a valid request after it is answered")
}

func checkAuthority(ctx context.Context, s *subject) outcome {
	// As grpc-go, and so kube-apiserver, derived it from the target.
	return s.onNewConnection(func(c *caller) outcome {
		if err := c.roundTrip(ctx); err != nil {
			return broken("Accept any :authority, or require kube-apiserver 1.32.", "%v", err)
		}
		return pass("accepted")
	}, grpc.WithAuthority(url.PathEscape(s.endpoint.Address())))
}
