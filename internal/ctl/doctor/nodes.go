// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/trousseau-io/trousseau/internal/ctl/fleet"
)

// pages asks each node how it is, and compares what they say.
func (e *examination) pages(ctx context.Context) {
	if len(e.Nodes) == 0 {
		return
	}
	r := fleet.Survey(ctx, fleet.Options{Nodes: e.Nodes, Timeout: step})
	var agree []string
	for _, a := range r.Nodes {
		e.check(ctx, "node", a.Node, func(context.Context) outcome { return health(a) })
		e.check(ctx, "node-config", a.Node, func(context.Context) outcome { return adopted(a) }, reached(a, ground("node", a.Node))...)
		e.check(ctx, "node-token", a.Node, func(context.Context) outcome { return kept(a) }, reached(a, ground("node", a.Node))...)
		agree = append(agree, reached(a, ground("node", a.Node))...)
	}
	if len(r.Nodes) > 1 {
		e.check(ctx, "nodes-agree", "", func(context.Context) outcome { return agreement(r) }, agree...)
	}
	if e.plugin != nil {
		e.check(ctx, "plugin-node", "", func(context.Context) outcome { return e.member(r) }, agree...)
	}
}

// reached makes a node that was not reached a ground; one that is not healthy
// has still said something.
func reached(a fleet.Answer, node string) []string {
	if a.State == nil {
		return []string{node}
	}
	return nil
}

func health(a fleet.Answer) outcome {
	switch {
	case a.State == nil:
		return fail("See that, or give the right addresses with --ops.", "%s", a.Unreachable)
	case !a.State.Healthy:
		return fail("See what is above, and its log.", "it is not ready: %s", strings.Join(a.State.Reasons, "; "))
	}
	return ok("ready, %s, build %s", a.State.Key, a.State.Build.Version)
}

func adopted(a fleet.Answer) outcome {
	r := a.State.Reload
	switch {
	case r.InUse:
		return ok("generation %d, adopted %s", a.State.Generation, r.Adopted.Format(time.RFC3339))
	case r.Class != "":
		return fail("See its log: it says what is wrong, and the one before stays in use.", "the configuration that is there now is not in use: %s", r.Class)
	}
	return fail("See its log, and whether config.yaml is there.", "it has no configuration yet")
}

func kept(a fleet.Answer) outcome {
	t := a.State.Token
	switch {
	case t.Expires.IsZero():
		return ok("it never dies, or may not be looked up")
	case t.KeptBy != fleet.Trousseau:
		return warn("Have a new one written in time, or make one that is periodic.", "it dies in %s, and trousseau cannot prevent that", span(time.Until(t.Expires)))
	}
	return ok("%s left; trousseau keeps it alive", span(time.Until(t.Expires)))
}

func agreement(r fleet.Report) outcome {
	if len(r.KeyIDs) > 1 {
		return fail("Run this again in half a minute; then see whether all have the same configuration and ask the same Vault.", "they have %d different key_ids: %s", len(r.KeyIDs), strings.Join(shares(r), "; "))
	}
	return ok("%s have the same key_id", plural(len(r.Nodes), "node"))
}

func shares(r fleet.Report) (all []string) {
	for _, k := range r.KeyIDs {
		all = append(all, k.Key.String()+" on "+joined(k.Nodes))
	}
	return all
}

func (e *examination) member(r fleet.Report) outcome {
	if slices.ContainsFunc(r.KeyIDs, func(k fleet.KeyID) bool { return k.Hash == e.plugin.Hash }) {
		return ok("the plugin on the socket has the key_id of the nodes")
	}
	return fail("See which process has the socket, and whether the addresses of --ops are right.", "the plugin on the socket has another key_id than the nodes")
}
