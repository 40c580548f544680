// SPDX-License-Identifier: Apache-2.0

package kms

import (
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/trousseau-io/trousseau/internal/fault"
)

// answers is the one place where a failure becomes a gRPC code and the phrase
// that API clients and kube-apiserver's log get to see.
var answers = map[fault.Class]struct {
	code   codes.Code
	phrase string
}{
	fault.Unavailable:   {codes.Unavailable, "vault cannot be used right now"},
	fault.Sealed:        {codes.Unavailable, "vault is sealed or has no active node"},
	fault.Throttled:     {codes.ResourceExhausted, "vault limits the rate of requests"},
	fault.Timeout:       {codes.DeadlineExceeded, "vault did not answer in time"},
	fault.Canceled:      {codes.Canceled, "the request was canceled"},
	fault.Overloaded:    {codes.ResourceExhausted, "more requests are under way than --max-vault-requests allows"},
	fault.Denied:        {codes.PermissionDenied, "vault denies the request: the token is dead or its policy too narrow"},
	fault.KeyLost:       {codes.FailedPrecondition, "the transit key is lost"},
	fault.VersionTooOld: {codes.FailedPrecondition, "this key version may no longer be used"},
	fault.VersionTooNew: {codes.Unavailable, "vault does not know this key version yet"},
	fault.Invalid:       {codes.InvalidArgument, "this was not encrypted by this plugin's key"},
}

// failure is an error whose public side is a gRPC status and whose private side
// is for our log.
type failure struct {
	public *status.Status
	cause  error
}

func (f *failure) Error() string              { return f.cause.Error() }
func (f *failure) GRPCStatus() *status.Status { return f.public }

// publish translates an error of the KEK's.
func publish(err error) error {
	var f *failure
	if errors.As(err, &f) {
		return f
	}
	answer := answers[fault.ClassOf(err)]
	return &failure{status.New(answer.code, answer.phrase+"; see trousseau's log"), err}
}

// unhealthy translates why there is no key_id. Its words reach
// /readyz/kms-providers, where the operator looks first, so the reason is given.
func unhealthy(err error) error {
	return &failure{status.New(codes.Unavailable, err.Error()), err}
}

func invalid(problem string) error {
	return &failure{status.New(codes.InvalidArgument, problem), errors.New(problem)}
}

// unusable is an answer of the KEK's that kube-apiserver would throw away.
func unusable(problem string) error {
	return &failure{status.New(codes.Internal, problem), errors.New(problem)}
}
