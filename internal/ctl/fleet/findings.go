// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/trousseau-io/trousseau/internal/ctl/finding"
	"github.com/trousseau-io/trousseau/internal/ctl/text"
)

// tokenSoon is how long before the expiry of a token that is not renewed a warning
// appears, as in the alert TrousseauTokenExpires.
const tokenSoon = 7 * 24 * time.Hour

// Judge compares the answers, and sets KeyIDs and Findings.
func (r *Report) Judge() {
	r.KeyIDs, r.Findings = keyIDs(r.Nodes), nil
	add := func(id string, severity finding.Severity, subject, text, do string) {
		r.Findings = append(r.Findings, finding.Finding{ID: id, Severity: severity, Subject: subject, Text: text, Do: do})
	}
	for _, a := range r.Nodes {
		if a.State == nil {
			add("node-unreachable", finding.Error, a.Node, a.Unreachable, "")
			continue
		}
		if !a.State.Healthy {
			add("node-unhealthy", finding.Error, a.Node, strings.Join(a.State.Reasons, "; "), "")
		}
		if reload := a.State.Reload; reload.Class != "" {
			line := "reload: " + reload.Class + ": the configuration in the file is not in use"
			if !reload.Adopted.IsZero() {
				line += "; trousseau still uses the one adopted " + text.Age(r.Time.Sub(reload.Adopted)) + " ago"
			}
			add("config-not-in-use", finding.Warning, a.Node, line, "Read trousseau's log.")
		}
		if t := a.State.Token; t.KeptBy == NoKeeper && t.Expires.Sub(r.Time) < tokenSoon {
			add("token-expires", finding.Warning, a.Node, "token: expires at "+t.Expires.Format(time.RFC3339)+" and is not renewed", "Issue a new one.")
		}
	}
	if len(r.KeyIDs) > 1 {
		add("key-ids-differ", finding.Error, "", "The nodes disagree on key_id: "+shares(r.KeyIDs)+".",
			"After a key rotation this lasts until each node has probed Vault again, about 30 seconds. Otherwise check that all nodes have the same configuration and use the same Vault.")
	}
	if r.typed && len(r.Nodes) < len(r.APIServers) {
		add("node-not-named", finding.Error, "", fmt.Sprintf("The cluster has %s, and only %s named.", text.Count(len(r.APIServers), "API server"), are(len(r.Nodes))),
			"Name the node of each API server.")
	}
	for _, s := range r.APIServers {
		if s.Node == "" && !r.typed {
			add("api-server-without-plugin", finding.Error, s.Address, "The API server at "+s.Address+" has no pod of trousseau on its node.",
				"Check the pods, and --selector and --namespace.")
		}
	}
	r.judgePlugin(add)
}

// LeftOut says which node is missing in the report, as far as the cluster's API shows
// that; "" for none. Without APIServers it is not known.
func (r Report) LeftOut() string {
	for _, f := range r.Findings {
		if slices.Contains([]string{"nodes-not-found", "api-server-without-plugin", "node-not-named"}, f.ID) {
			return f.Text
		}
	}
	return ""
}

// unpublished is the finding of a cluster that names no API server.
var unpublished = finding.Finding{
	ID: "api-servers-unknown", Severity: finding.Warning,
	Text: "The cluster does not publish its API servers in the EndpointSlices of the Service default/kubernetes, so a missing node goes unnoticed.",
}

// judgePlugin adds what is wrong with the plugin on the socket.
func (r *Report) judgePlugin(add func(id string, severity finding.Severity, subject, text, do string)) {
	if r.Plugin == nil {
		return
	}
	p := *r.Plugin
	known := func(k KeyID) bool { return k.Hash == p.Hash }
	switch {
	case p.Error != "":
		add("plugin-unavailable", finding.Error, p.Endpoint, fmt.Sprintf("The plugin at %s does not answer Status: %s", p.Endpoint, p.Error), "")
	case p.Healthz != "ok":
		add("plugin-unhealthy", finding.Error, p.Endpoint, fmt.Sprintf("The plugin at %s reports its health as %q, not ok.", p.Endpoint, p.Healthz), "")
	case len(r.KeyIDs) > 0 && !slices.ContainsFunc(r.KeyIDs, known):
		add("plugin-not-a-node", finding.Error, p.Endpoint, fmt.Sprintf("The plugin at %s is none of these nodes: the hash of its key_id is %s.", p.Endpoint, p.Hash),
			"Check which process has the socket, and that you gave its --ops-addr.")
	}
}

// are counts nodes, with the verb.
func are(nodes int) string {
	if nodes == 1 {
		return "1 node is"
	}
	return fmt.Sprintf("%d nodes are", nodes)
}

func shares(ids []KeyID) string {
	var each []string
	for _, k := range ids {
		each = append(each, fmt.Sprintf("%.19s… (%s version %d) on %s", k.Hash, k.Name, k.Version, strings.Join(k.Nodes, ", ")))
	}
	return strings.Join(each, "; ")
}
