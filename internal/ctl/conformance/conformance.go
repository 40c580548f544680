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
	report := Report{Endpoint: o.Endpoint.String(), Timeout: o.Timeout.String(), Conformant: true}
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
