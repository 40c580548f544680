// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"context"
	"fmt"
	"slices"

	"github.com/trousseau-io/trousseau/internal/ctl/finding"
)

// Action is what a step does.
type Action string

// The actions.
const (
	Create Action = "create"
	Change Action = "change"
	Keep   Action = "keep"
)

// State is what has become of a step.
type State string

// The states. A plan's steps are Left, except for those that Keep.
const (
	Kept   State = "kept"
	Done   State = "done"
	Failed State = "failed"
	Left   State = "left"
)

// Step is one resource in Vault.
type Step struct {
	Action Action `json:"action"`
	State  State  `json:"state"`
	// What names the resource.
	What string `json:"what"`
	// Details are its settings, or what changes.
	Details []string `json:"details,omitempty"`
	// Command is an equivalent vault command for a shell; "" for Keep. It holds no
	// secret.
	Command string `json:"command,omitempty"`

	apply func(context.Context) error
}

// Plan is all steps, in order.
type Plan struct {
	Steps    []Step            `json:"steps"`
	Findings []finding.Finding `json:"-"`
}

// Count returns the number of steps in a state.
func (p Plan) Count(state State) int {
	n := 0
	for _, s := range p.Steps {
		if s.State == state {
			n++
		}
	}
	return n
}

// Apply applies the steps in order, and notes the state of each. After an error a new
// plan continues from there.
func (p Plan) Apply(ctx context.Context) error {
	for i := range p.Steps {
		s := &p.Steps[i]
		if s.Action == Keep {
			continue
		}
		if err := s.apply(ctx); err != nil {
			s.State = Failed
			return fmt.Errorf("%s: %w", s.What, err)
		}
		s.State = Done
	}
	return nil
}

// planner makes a plan.
type planner struct {
	vault    Vault
	options  Options
	steps    []Step
	findings []finding.Finding
	removed  map[string]bool
}

// Make reads Vault and plans. It writes nothing. The error is a failed read, or says
// why the setup would do harm and what to do instead.
func Make(ctx context.Context, v Vault, o Options) (Plan, error) {
	if err := o.Validate(); err != nil {
		return Plan{}, err
	}
	p := &planner{vault: v, options: o, removed: map[string]bool{}}
	parts := []func(context.Context) error{p.transit, p.policies}
	if !o.Login {
		parts = append(parts, p.secret)
	}
	if !o.WithoutKubernetes {
		parts = append(parts, p.kubernetes)
	}
	for _, part := range parts {
		if err := part(ctx); err != nil {
			return Plan{}, err
		}
	}
	for _, what := range o.Remove {
		if !p.removed[what] {
			p.warn("nothing-to-remove", what, "there is nothing of this name to remove in the policies and the role", "")
		}
	}
	return Plan{Steps: p.steps, Findings: p.findings}, nil
}

// removes reports whether --remove names what.
func (p *planner) removes(what string) bool {
	named := slices.Contains(p.options.Remove, what)
	p.removed[what] = p.removed[what] || named
	return named
}

func (p *planner) find(severity finding.Severity, id, subject, text, do string) {
	p.findings = append(p.findings, finding.Finding{ID: id, Severity: severity, Subject: subject, Text: text, Do: do})
}

func (p *planner) warn(id, subject, text, do string) {
	p.find(finding.Warning, id, subject, text, do)
}

func (p *planner) add(s Step) { p.steps = append(p.steps, s) }

func (p *planner) keep(what string, details ...string) {
	p.add(Step{Action: Keep, State: Kept, What: what, Details: details})
}

// write adds a step that is one write.
func (p *planner) write(action Action, what string, details []string, command, path string, body map[string]any) {
	p.add(Step{Action: action, State: Left, What: what, Details: details, Command: command, apply: func(ctx context.Context) error {
		_, err := p.vault.Write(ctx, path, body)
		return err
	}})
}

// mount is the type and version of an engine or auth method.
type mount struct {
	kind, version string
}

// mounts reads sys/mounts or sys/auth.
func (p *planner) mounts(ctx context.Context, path string) (map[string]mount, error) {
	data, err := p.vault.Read(ctx, path)
	if err != nil {
		return nil, err
	}
	all := map[string]mount{}
	for at, value := range data {
		m, ok := value.(map[string]any)
		if !ok {
			continue
		}
		options, _ := m["options"].(map[string]any)
		all[at] = mount{kind: text(m["type"]), version: text(options["version"])}
	}
	return all, nil
}
