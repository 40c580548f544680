// SPDX-License-Identifier: Apache-2.0

package encryptionconfig

import (
	"fmt"
	"slices"
	"strings"
)

// Explanation is what a result means, in words.
type Explanation struct {
	// Resources are what it is about, and Writes and Reads the providers, in
	// their order.
	Resources string
	Writes    string
	Reads     []string
	// Next are the steps to take, in their order.
	Next []Step
	// Notes are what somebody should know beside it.
	Notes []string
}

// Step is something to do.
type Step struct {
	Text string
	// Command is what to type; empty if there is none.
	Command string
}

// Explain says who writes, who reads, and what to do next.
func (r Result) Explain() Explanation {
	e := Explanation{
		Resources: fmt.Sprintf("%s, in resources[%d]", list(r.Entry.Resources), r.Index),
		Writes:    r.Entry.Providers[0].String(),
		Notes:     r.Notes,
	}
	for _, p := range r.Entry.Providers {
		e.Reads = append(e.Reads, p.String())
	}
	ours := r.Entry.Providers[0].KMS != nil && r.Entry.Providers[0].KMS.Name == r.Added
	// EncryptionConfigFileChangePollDuration in
	// pkg/server/options/encryptionconfig/controller is one minute.
	load := Step{Text: "Give this file to every API server. With --encryption-provider-config-automatic-reload=true each loads it within about a minute; without, restart them one after another."}
	healthy := Step{"Go on when each of them says ok:", "kubectl get --raw /readyz/kms-providers"}
	if !ours {
		e.Next = []Step{
			load,
			healthy,
			{Text: fmt.Sprintf("Then every API server can read what %s writes: run this again with --phase write. Until then %s goes on writing.", r.Added, e.Writes)},
		}
		return e
	}
	e.Next = []Step{
		{Text: "With several API servers: all of them must have loaded the file of --phase read before. One that has not cannot read what the others write from now on."},
		load,
		healthy,
		rewrite(r.Entry.Resources),
	}
	if rest := others(r.Entry.Providers); len(rest) > 0 {
		e.Next = append(e.Next, Step{Text: fmt.Sprintf("Remove %s from resources[%d] when trousseauctl audit finds nothing under it, and you would restore no backup that has. Not before: what is under it could not be read.",
			strings.Join(rest, " and "), r.Index)})
	}
	return e
}

// rewrite has the API server write everything anew.
func rewrite(resources []string) Step {
	const command = "trousseauctl reencrypt --kubeconfig /etc/kubernetes/admin.conf --resources "
	const text = "Encrypt what is in etcd already, with --ops and the pages of every node's plugin"
	if slices.ContainsFunc(resources, func(r string) bool { return parseResource(r).resource == "*" }) {
		return Step{text + ", each RESOURCE that " + list(resources) + " stands for:", command + "RESOURCE,..."}
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
