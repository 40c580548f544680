// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"context"
	"slices"
)

// Level is how much depends on a check.
type Level string

const (
	// Must is what kube-apiserver or the data depends on.
	Must Level = "must"
	// Should is what makes a plugin safer or easier to live with.
	Should Level = "should"
)

// Check is one rule.
type Check struct {
	// Name is in kebab-case and stays as it is.
	Name string `json:"name"`
	// Group is what the rule is about.
	Group string `json:"group"`
	Level Level  `json:"level"`
	// Rule is what has to be true.
	Rule string `json:"rule"`
	// Source is what the rule rests on: a file and symbol of Kubernetes, a
	// section of KEP-3299 or a page.
	Source string `json:"source"`

	// needs are the checks without which this one says nothing.
	needs []string
	run   func(context.Context, *subject) outcome
}

// Checks lists all checks in the order in which they are made.
func Checks() []Check {
	return slices.Concat(
		statusChecks(),
		encryptChecks(),
		decryptChecks(),
		refusalChecks(),
		messageChecks(),
		abandonChecks(),
		parallelChecks(),
		connectionChecks(),
		secretChecks(),
		socketChecks(),
	)
}

// What the rules rest on. The files are those of Kubernetes 1.29 to 1.37, in
// staging/src/k8s.io.
const (
	sourceProbe    = "apiserver/pkg/server/options/encryptionconfig/config.go "
	sourceEnvelope = "apiserver/pkg/storage/value/encrypt/envelope/kmsv2/envelope.go "
	sourceClient   = "apiserver/pkg/storage/value/encrypt/envelope/kmsv2/grpc_service.go "
	sourceAPI      = "kms/apis/v2/api.proto "
	sourceKEP      = "KEP-3299, "
	sourceDocs     = "kubernetes.io/docs/tasks/administer-cluster/kms-provider, KMS v2 notes, "
)

// The checks that others need.
const (
	statusAnswers  = "status-answers"
	encryptAnswers = "encrypt-answers"
	roundTrips     = "decrypt-round-trip"
)
