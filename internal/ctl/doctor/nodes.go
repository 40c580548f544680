// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/trousseau-io/trousseau/internal/ctl/fleet"
	"github.com/trousseau-io/trousseau/internal/ctl/text"
)

// nodes asks the ops endpoints of each node, and compares the answers.
func (e *examination) nodes(ctx context.Context) {
	if len(e.Nodes) == 0 {
		return
	}
	r := fleet.Survey(ctx, fleet.Options{Nodes: e.Nodes, Find: e.Find, Timeout: step})
	if e.Find != nil {
		found := r
		e.check(ctx, "nodes-found", "", func(context.Context) outcome { return everyNode(found) })
	}
	if r.Err != nil {
		r = fleet.Survey(ctx, fleet.Options{Nodes: e.Nodes, Timeout: step})
	}
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

// everyNode judges whether the nodes are all of the cluster's.
func everyNode(r fleet.Report) outcome {
	missing := r.LeftOut()
	switch {
	case r.Err != nil:
		return warn("Allow these credentials to find the pods, see docs/clusters.md, or name the nodes with --ops.", "%s", r.Err)
	case missing != "":
		return fail("Check why trousseau does not run there.", "%s", strings.TrimSuffix(missing, "."))
	case len(r.APIServers) == 0:
		return ok("the cluster has no pods of trousseau; its nodes are those of --ops")
	}
	return ok("%s, and each of %s has one", text.Count(len(r.Nodes), "node"), text.Count(len(r.APIServers), "API server"))
}

// reached makes the check of a node a ground, but only if the node was not reached:
// one that is not ready has answered too.
func reached(a fleet.Answer, node string) []string {
	if a.State == nil {
		return []string{node}
	}
	return nil
}

func health(a fleet.Answer) outcome {
	switch {
	case a.State == nil:
		return fail("Start trousseau there, or give the right addresses with --ops.", "%s", a.Unreachable)
	case !a.State.Healthy:
		return fail("Correct what fails above, and read its log.", "not ready: %s", strings.Join(a.State.Reasons, "; "))
	}
	return ok("ready, %s, build %s", a.State.Key, a.State.Build.Version)
}

// adopted judges whether the node uses its current configuration.
func adopted(a fleet.Answer) outcome {
	r := a.State.Reload
	switch {
	case r.InUse:
		return ok("generation %d, adopted %s", a.State.Generation, r.Adopted.Format(time.RFC3339))
	case r.Class != "":
		return fail("Read its log: it says what is wrong. The previous configuration stays in use.", "the current configuration is not in use: %s", r.Class)
	}
	return fail("Read its log, and check that config.yaml exists.", "it has no configuration yet")
}

// kept judges whether the node's token is renewed.
func kept(a fleet.Answer) outcome {
	t := a.State.Token
	switch {
	case t.Expires.IsZero():
		return ok("it never expires, or may not be looked up")
	case t.KeptBy != fleet.Trousseau:
		return warn("Have a new token written in time, or issue a periodic one.", "it expires in %s, and trousseau cannot renew it", text.Span(time.Until(t.Expires)))
	}
	return ok("%s left; trousseau renews it", text.Span(time.Until(t.Expires)))
}

func agreement(r fleet.Report) outcome {
	if len(r.KeyIDs) > 1 {
		return fail("Run doctor again in half a minute. If the nodes still differ, check that all have the same configuration and the same Vault.", "they announce %d different key_ids: %s", len(r.KeyIDs), strings.Join(shares(r), "; "))
	}
	return ok("%s announce the same key_id", text.Count(len(r.Nodes), "node"))
}

func shares(r fleet.Report) (all []string) {
	for _, k := range r.KeyIDs {
		all = append(all, k.Key.String()+" on "+strings.Join(k.Nodes, ", "))
	}
	return all
}

// member judges whether the plugin on our socket is one of the nodes.
func (e *examination) member(r fleet.Report) outcome {
	if slices.ContainsFunc(r.KeyIDs, func(k fleet.KeyID) bool { return k.Hash == e.plugin.Hash }) {
		return ok("the plugin on the socket announces a key_id of the nodes")
	}
	return fail("Check which process owns the socket, and that the addresses of --ops are right.", "the plugin on the socket announces another key_id than the nodes")
}
