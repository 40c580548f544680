// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"context"
	"fmt"
)

// Action is what a step does.
type Action string

// The actions.
const (
	Create Action = "create"
	Change Action = "change"
	Keep   Action = "keep"
)

// Step is one resource in Vault.
type Step struct {
	Action Action `json:"action"`
	// What names the resource.
	What string `json:"what"`
	// Details are its settings, or what changes.
	Details []string `json:"details,omitempty"`
	// Hint is what the operator must still do; "" for nothing.
	Hint string `json:"hint,omitempty"`
	// Command is an equivalent vault command for a shell; "" for Keep. It holds no
	// secret.
	Command string `json:"command,omitempty"`

	apply func(context.Context) error
}

// Plan is all steps, in order.
type Plan struct {
	Steps []Step `json:"steps"`
}

// Changes counts the steps that create or change something.
func (p Plan) Changes() int {
	n := 0
	for _, s := range p.Steps {
		if s.Action != Keep {
			n++
		}
	}
	return n
}

// Apply applies the steps in order. It calls done, which may be nil, after each step,
// including those that keep. After an error the earlier steps are done, and a new
// plan continues from there.
func (p Plan) Apply(ctx context.Context, done func(Step)) error {
	for _, s := range p.Steps {
		if s.Action != Keep {
			if err := s.apply(ctx); err != nil {
				return fmt.Errorf("%s: %w", s.What, err)
			}
		}
		if done != nil {
			done(s)
		}
	}
	return nil
}

// planner makes a plan.
type planner struct {
	vault   Vault
	options Options
	steps   []Step
}

// Make reads Vault and plans. It writes nothing. The error is a failed read, or says
// why the setup would do harm and what to do instead.
func Make(ctx context.Context, v Vault, o Options) (Plan, error) {
	if err := o.Validate(); err != nil {
		return Plan{}, err
	}
	p := &planner{vault: v, options: o}
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
	return Plan{Steps: p.steps}, nil
}

func (p *planner) add(s Step) { p.steps = append(p.steps, s) }

func (p *planner) keep(what string, details ...string) {
	p.add(Step{Action: Keep, What: what, Details: details})
}

// write adds a step that is one write.
func (p *planner) write(action Action, what string, details []string, command, path string, body map[string]any) {
	p.add(Step{Action: action, What: what, Details: details, Command: command, apply: func(ctx context.Context) error {
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
