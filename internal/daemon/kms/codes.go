// SPDX-License-Identifier: Apache-2.0

package kms

import (
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/trousseau-io/trousseau/internal/fault"
)

// answers is the one place where a failure becomes a gRPC code and a phrase for
// API clients and kube-apiserver's log.
var answers = map[fault.Class]struct {
	code   codes.Code
	phrase string
}{
	fault.Unavailable:   {codes.Unavailable, "vault is unavailable"},
	fault.Sealed:        {codes.Unavailable, "vault is sealed or has no active node"},
	fault.Throttled:     {codes.ResourceExhausted, "vault's rate limit is exceeded"},
	fault.Timeout:       {codes.DeadlineExceeded, "vault did not answer in time"},
	fault.Canceled:      {codes.Canceled, "the request was canceled"},
	fault.Overloaded:    {codes.ResourceExhausted, "concurrency limit --max-vault-requests reached"},
	fault.Denied:        {codes.PermissionDenied, "vault denied the request: the token is expired or revoked, or its policy is too narrow"},
	fault.KeyLost:       {codes.FailedPrecondition, "the transit key is lost"},
	fault.KeyUnusable:   {codes.FailedPrecondition, "the transit key has the wrong type, or is derived"},
	fault.VersionTooOld: {codes.FailedPrecondition, "this key version may no longer be used"},
	fault.VersionTooNew: {codes.Unavailable, "vault does not know this key version yet"},
	fault.Invalid:       {codes.InvalidArgument, "this was not encrypted with this plugin's key"},
}

// failure is an error with a gRPC status for the caller and a cause for our log.
type failure struct {
	public *status.Status
	cause  error
}

func (f *failure) Error() string              { return f.cause.Error() }
func (f *failure) GRPCStatus() *status.Status { return f.public }

// publish translates an error of the KEK.
func publish(err error) error {
	var f *failure
	if errors.As(err, &f) {
		return f
	}
	answer := answers[fault.ClassOf(err)]
	return &failure{status.New(answer.code, answer.phrase+"; see trousseau's log"), err}
}

// refuse is a failure whose reason the caller may read.
func refuse(code codes.Code, reason string) error {
	return &failure{status.New(code, reason), errors.New(reason)}
}
