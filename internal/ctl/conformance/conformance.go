// SPDX-License-Identifier: Apache-2.0

// Package conformance checks any KMS v2 plugin for everything that kube-apiserver
// relies on. It calls the plugin over its socket, as kube-apiserver does, and knows
// nothing about its implementation. It does not cover KMS v1.
//
// A [Check] is one rule and its source. The checks send generated plaintexts and
// change nothing, so a plugin in use can be checked, at the cost of several hundred
// Encrypts and Decrypts.
package conformance

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/trousseau-io/trousseau/internal/endpoint"
	"github.com/trousseau-io/trousseau/internal/seed"
)

// Options say which plugin to check, and how.
type Options struct {
	// Endpoint is where the plugin listens.
	Endpoint endpoint.Endpoint
	// Timeout is the time limit for one call, as in EncryptionConfiguration; 0 means
	// kube-apiserver's default of 3s.
	Timeout time.Duration
	// Run selects the checks whose names match; nil selects all. Skip then removes
	// those whose names match; nil removes none.
	Run, Skip *regexp.Regexp
}

// Selects reports whether the options select a check with this name.
func (o Options) Selects(name string) bool {
	return (o.Run == nil || o.Run.MatchString(name)) && (o.Skip == nil || !o.Skip.MatchString(name))
}

// Run runs the selected checks, one after the other. It returns an error only if it
// cannot connect to the plugin's socket, or if ctx ends. Failed checks are in the
// [Report].
func Run(ctx context.Context, o Options) (Report, error) {
	if o.Timeout == 0 {
		o.Timeout = 3 * time.Second
	}
	s, err := newSubject(ctx, o)
	if err != nil {
		return Report{}, err
	}
	defer s.close()
	checks := Checks()
	made := examination{subject: s, checks: checks, outcomes: make(map[string]outcome)}
	report := Report{Endpoint: o.Endpoint.String(), Timeout: o.Timeout.String()}
	for _, c := range checks {
		if !o.Selects(c.Name) {
			continue
		}
		start := time.Now()
		result := made.outcome(ctx, c)
		if ctx.Err() != nil {
			return report, fmt.Errorf("interrupted at %s: %w", c.Name, context.Cause(ctx))
		}
		report.add(c, result, time.Since(start))
	}
	return report, nil
}

// examination remembers the outcomes, so that each check runs once even if others
// need it.
type examination struct {
	subject  *subject
	checks   []Check
	outcomes map[string]outcome
}

// outcome runs a check, and first those that it needs, selected or not.
func (e *examination) outcome(ctx context.Context, c Check) outcome {
	if o, made := e.outcomes[c.Name]; made {
		return o
	}
	o := e.make(ctx, c)
	e.outcomes[c.Name] = o
	return o
}

func (e *examination) make(ctx context.Context, c Check) outcome {
	for _, name := range c.needs {
		i := slices.IndexFunc(e.checks, func(other Check) bool { return other.Name == name })
		if needed := e.outcome(ctx, e.checks[i]); needed.result != Pass {
			return skip("not run: it depends on %s, which does not pass: %s", name, needed.detail)
		}
	}
	return c.run(ctx, e.subject)
}

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

// must and should make a check of that level.
func must(name, rule, source string, run func(context.Context, *subject) outcome, needs ...string) Check {
	return Check{Name: name, Level: Must, Rule: rule, Source: source, run: run, needs: needs}
}

func should(name, rule, source string, run func(context.Context, *subject) outcome, needs ...string) Check {
	return Check{Name: name, Level: Should, Rule: rule, Source: source, run: run, needs: needs}
}

func inGroup(group string, checks ...Check) []Check {
	for i := range checks {
		checks[i].Group = group
	}
	return checks
}

// sampled is a check that begins with a new seed and its encrypted form.
func sampled(check func(context.Context, *subject, []byte, seed.Wrapped) outcome) func(context.Context, *subject) outcome {
	return func(ctx context.Context, s *subject) outcome {
		plaintext, w, err := s.main.sample(ctx)
		if err != nil {
			return broken("", "%v", err)
		}
		return check(ctx, s, plaintext, w)
	}
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
