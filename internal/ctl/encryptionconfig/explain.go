// SPDX-License-Identifier: Apache-2.0

package encryptionconfig

import (
	"fmt"
	"slices"
	"strings"
)

// Explanation says in words what a result means.
type Explanation struct {
	// Changed is false if the file already was as requested.
	Changed bool `json:"changed"`
	// Resources names the resources, Writes and Reads the providers in order.
	Resources string   `json:"resources"`
	Writes    string   `json:"writes"`
	Reads     []string `json:"reads"`
	// Next are the steps to take, in order.
	Next []Step `json:"next"`
}

// Step is something to do.
type Step struct {
	Text string `json:"text"`
	// Command is a shell command for it; "" for none.
	Command string `json:"command,omitempty"`
}

// Explain says which providers write and read, and what to do next.
func (r Result) Explain() Explanation {
	e := Explanation{
		Changed:   r.Changed,
		Resources: fmt.Sprintf("%s, in resources[%d]", strings.Join(r.Entry.Resources, ", "), r.Index),
		Writes:    r.Entry.Providers[0].String(),
	}
	for _, p := range r.Entry.Providers {
		e.Reads = append(e.Reads, p.String())
	}
	ours := r.Entry.Providers[0].KMS != nil && r.Entry.Providers[0].KMS.Name == r.Added
	// EncryptionConfigFileChangePollDuration in
	// pkg/server/options/encryptionconfig/controller is one minute.
	load := Step{Text: "Copy this file to every API server. With --encryption-provider-config-automatic-reload=true, each loads it within about a minute. Without it, restart them one by one."}
	healthy := Step{"Continue when each of them answers ok:", "kubectl get --raw /readyz/kms-providers"}
	if !ours {
		e.Next = []Step{
			load,
			healthy,
			{Text: fmt.Sprintf("Now every API server can read what %s encrypts. Run this again with --phase write. Until then, %s still writes.", r.Added, e.Writes)},
		}
		return e
	}
	e.Next = []Step{
		{Text: "With several API servers, first make sure that all of them have loaded the file of --phase read. One that has not cannot read what the others write from now on."},
		load,
		healthy,
		rewrite(r.Entry.Resources),
	}
	if rest := others(r.Entry.Providers); len(rest) > 0 {
		e.Next = append(e.Next, Step{Text: fmt.Sprintf("Remove %s from resources[%d] only when trousseauctl audit finds no value that needs it, and no backup that you keep needs it. Such values could no longer be read.",
			strings.Join(rest, " and "), r.Index)})
	}
	return e
}

// rewrite is the step that re-encrypts all objects.
func rewrite(resources []string) Step {
	const command = "trousseauctl reencrypt --kubeconfig /etc/kubernetes/admin.conf --resources "
	const text = "Re-encrypt the objects in etcd; give the ops endpoints of all nodes with --ops"
	if slices.ContainsFunc(resources, func(r string) bool { return parseResource(r).resource == "*" }) {
		return Step{text + ". Give each RESOURCE that " + strings.Join(resources, ", ") + " stands for:", command + "RESOURCE,..."}
	}
	return Step{text + ":", command + strings.Join(resources, ",")}
}

func others(providers []Provider) []string {
	var all []string
	for _, p := range providers[1:] {
		all = append(all, p.String())
	}
	return all
}
