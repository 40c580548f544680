// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"context"
	"slices"

	"github.com/trousseau-io/trousseau/internal/seed"
)

// Level is the importance of a check.
type Level string

const (
	// Must means that kube-apiserver or the data depends on it.
	Must Level = "must"
	// Should means that it makes a plugin safer or easier to operate.
	Should Level = "should"
)

// Check is one rule.
type Check struct {
	// Name is in kebab-case and never changes.
	Name string `json:"name"`
	// Group is the topic of the rule.
	Group string `json:"group"`
	Level Level  `json:"level"`
	// Rule is a sentence that must be true.
	Rule string `json:"rule"`
	// Source is the origin of the rule: a file and symbol of Kubernetes, a section of
	// KEP-3299 or a page.
	Source string `json:"source"`

	// needs are the checks that must pass for this one to be meaningful.
	needs []string
	run   func(context.Context, *subject) outcome
}

// Checks returns all checks, in the order in which they run.
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

// The sources of the rules. The files are those of Kubernetes 1.29 to 1.37, in
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

// What kube-apiserver accepts, in bytes: KeyIDMaxSize, encryptedDEKSourceMaxSize
// and annotationsMaxSize in kmsv2/envelope.go. They are not shared with Trousseau's
// server, because this package checks it.
const (
	maxKeyID       = 1 << 10
	maxCiphertext  = 1 << 10
	maxAnnotations = 32 << 10
)

func annotationsSize(w seed.Wrapped) int {
	size := 0
	for key, value := range w.Annotations {
		size += len(key) + len(value)
	}
	return size
}
