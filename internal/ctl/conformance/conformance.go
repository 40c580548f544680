// SPDX-License-Identifier: Apache-2.0

// Package conformance asks a KMS v2 plugin, whichever it is, for everything that
// kube-apiserver relies on. It calls the plugin as kube-apiserver would, over its
// socket, and knows nothing of what is behind it. KMS v1 is neither needed nor
// looked at.
//
// What is asked is a [Check]: one rule, and what the rule rests on. The checks
// send plaintexts of their own making and change nothing; a plugin in use can be
// asked, at the cost of several hundred Encrypts and Decrypts.
package conformance

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"time"
)

// Options say which plugin is asked, and what.
type Options struct {
	// Endpoint is where the plugin listens.
	Endpoint Endpoint
	// Timeout is how long one call may take, as in EncryptionConfiguration; 0
	// means kube-apiserver's default of 3s.
	Timeout time.Duration
	// Run selects the checks whose names match; nil selects all. Skip then takes
	// out those that match; nil takes out none.
	Run, Skip *regexp.Regexp
}

// Selects reports whether a check of this name is to be made.
func (o Options) Selects(name string) bool {
	return (o.Run == nil || o.Run.MatchString(name)) && (o.Skip == nil || !o.Skip.MatchString(name))
}

// Run makes the selected checks, one after the other. It returns an error only
// if the plugin's socket cannot be connected to or ctx ends; a plugin that is
// not as it should be is for the [Report] to say.
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
			return report, fmt.Errorf("stopped at %s: %w", c.Name, context.Cause(ctx))
		}
		report.add(c, result, time.Since(start))
	}
	return report, nil
}

// examination is the checks that have been made, so that each is made once even
// if others need it.
type examination struct {
	subject  *subject
	checks   []Check
	outcomes map[string]outcome
}

// outcome makes a check, and before it those that it needs, selected or not.
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
			return skip("cannot be judged: it needs %s, and there: %s", name, needed.detail)
		}
	}
	return c.run(ctx, e.subject)
}
