// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/trousseau-io/trousseau/internal/ctl/rotate"
	"github.com/trousseau-io/trousseau/internal/ctl/text"
	"github.com/trousseau-io/trousseau/internal/ctl/vaultadmin"
)

func newRotateToken() *cobra.Command {
	o := rotate.Options{Interval: time.Second, Token: vaultadmin.TokenOptions{Policies: []string{"trousseau"}}}
	var nodes nodeFlags
	var resume, cluster string
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "rotate-token [ADDR...]",
		Short: "Replace Trousseau's token, and revoke the old one when every node uses the new one",
		Long: `For a Trousseau whose token a Vault Agent renders from a KV secret. Creates a new
token, writes it to the secret without changing the other fields, waits until
every node serves with it, and revokes the old token. Run it before the token
expires, for example monthly.

It finds the nodes in the cluster of --kubeconfig and --context, like trousseauctl
status, and refuses if an API server has no pod of trousseau on its node: a node
that is left out loses its token. Under systemd, name the nodes: each ADDR is the
host:port of a node's ops endpoints, its --ops-addr. With --kubeconfig their number
is compared with that of the API servers; without it, state that you have named
every node with --all-nodes.

If a node does not answer, or uses another token than the one in the secret,
nothing is changed. If a node does not serve with the new token within --timeout, both tokens stay valid, the exit code
is 3, and the output says how to resume.

It refuses, before it changes anything, if the token in the secret is your own; if it
has other policies than --policy and default, so that others may use it; if nobody
may look it up; or if --field names a field that does not hold a token.

It needs an administrator's token, not Trousseau's. VAULT_ADDR, VAULT_TOKEN,
VAULT_CACERT and VAULT_NAMESPACE work as for the vault command.`,
		Example: `  trousseauctl rotate-token --kubeconfig admin.conf --dry-run
  trousseauctl rotate-token --all-nodes --dry-run 10.0.0.1:8095 10.0.0.2:8095 10.0.0.3:8095
  trousseauctl rotate-token --kubeconfig admin.conf --nodes-from nodes.txt --timeout 10m`,
	}
	flags := cmd.Flags()
	clusterFlag(cmd, &cluster)
	nodes.register(flags)
	flags.BoolVar(&o.AllNodes, "all-nodes", false, "the addresses are those of every node that uses the token")
	flags.BoolVar(&dryRun, "dry-run", false, "write nothing; print what would be done")
	flags.StringVar(&resume, "resume", "", "complete an earlier rotation: wait for the token in the secret, and revoke the token of this `accessor`")
	flags.DurationVar(&o.Timeout, "timeout", 5*time.Minute, "time limit for all nodes to use the new token")
	flags.StringArrayVar(&o.Token.Policies, "policy", o.Token.Policies, "policy `name` for the new token; may be repeated")
	flags.BoolVar(&o.AnyPolicies, "any-policies", false, "revoke the old token even if its policies are not those of --policy")
	flags.StringVar(&o.Token.Period, "period", "768h", "maximum `duration` between renewals of the new token; empty for a token without a period")
	flags.StringVar(&o.Token.TTL, "ttl", "", "lifetime, a `duration`, of a token without a period")
	flags.BoolVar(&o.Token.Orphan, "orphan", true, "orphan token, which stays valid when the administrator's token ends")
	flags.StringVar(&o.KVMount, "kv-mount", "secret", "`path` of the KV engine")
	flags.StringVar(&o.KVPath, "kv-path", "trousseau/config", "`path` of the secret in the KV engine")
	flags.StringVar(&o.Field, "field", "vaulttoken", "`field` of the secret with the token")
	out := outputFlag(cmd, "RotateToken")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := useCluster(cmd, cluster); err != nil {
			return err
		}
		switch {
		case o.Timeout <= 0:
			return usageError{fmt.Errorf("--timeout: %s is not a positive duration such as 5m", o.Timeout)}
		case o.Token.Period != "" && o.Token.TTL != "":
			return usageError{errors.New("--ttl: a periodic token has no TTL; add --period=")}
		case dryRun && resume != "":
			return usageError{errors.New("give --dry-run or --resume, not both")}
		case nodes.typed(args) && !nodes.cluster.given(flags) && !o.AllNodes:
			return usageError{errors.New("a node that you leave out loses its token: add --kubeconfig, to compare the addresses with the API servers, or --all-nodes, if you have named every node")}
		}
		which, err := nodes.options(cmd, args)
		if err != nil {
			return err
		}
		o.Nodes, o.Find = which.Nodes, which.Find
		if o.Vault, err = administrator(cmd.Context()); err != nil {
			return err
		}
		o.Moved = func(n rotate.Node) {
			fmt.Fprintf(cmd.ErrOrStderr(), "%s serves with the new token after %.1fs\n", n.Node, n.Seconds)
		}
		return rotateToken(cmd, o, dryRun, resume, out, where(o)+nodes.again(cmd.Flags(), args))
	}
	return cmd
}

func rotateToken(cmd *cobra.Command, o rotate.Options, dryRun bool, resume string, out *output, again string) error {
	ctx := cmd.Context()
	var r rotate.Report
	var err error
	switch {
	case dryRun:
		r, err = rotate.DryRun(ctx, o)
	case resume != "":
		r, err = rotate.Resume(ctx, o, resume)
	default:
		r, err = rotate.Run(ctx, o)
	}
	if err != nil {
		return err
	}
	return out.write(cmd, result{Report: r, Findings: r.Findings}, func(w io.Writer, _ painter) error {
		if dryRun {
			return printRotationPlan(w, o, r)
		}
		return printRotation(w, r, again)
	})
}

func printRotation(w io.Writer, r rotate.Report, again string) error {
	fmt.Fprintln(w, "NODE\tTOKEN\tSERVES\tAFTER")
	for _, n := range r.Nodes {
		token, serves, after := "old", "no", "-"
		if n.Moved {
			token = "new"
		}
		if n.Serves {
			serves = "yes"
		}
		if n.Moved && n.Serves {
			after = fmt.Sprintf("%.1fs", n.Seconds)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", n.Node, token, serves, after)
	}
	for _, n := range r.Nodes {
		if n.Reason != "" {
			text.Line(w, "\n", n.Node+": "+n.Reason)
		}
	}
	text.Line(w, "\n", fmt.Sprintf("The token in %s has accessor %s.", r.Secret, r.NewAccessor))
	switch {
	case r.Revoked:
		text.Line(w, "", fmt.Sprintf("The old token, with accessor %s, is revoked.", r.OldAccessor))
	case r.OldAccessor == "" && r.Stuck == "":
		text.Line(w, "", fmt.Sprintf("No token is revoked, because %s.", r.NoOld))
	case r.OldAccessor == "":
		text.Line(w, "", text.Capital(r.Stuck)+". There is no old token to revoke.")
	default:
		text.Line(w, "", "The old token is NOT revoked: "+r.Stuck+".")
		fmt.Fprintf(w, `When that is fixed, resume:

  trousseauctl rotate-token --resume %s%s

To revoke it anyway, although nodes with the old token then fail:

  vault token revoke -accessor %s
`, r.OldAccessor, again, r.OldAccessor)
	}
	return nil
}

func printRotationPlan(w io.Writer, o rotate.Options, r rotate.Report) error {
	old := "revoke nothing, because " + r.NoOld
	if r.OldAccessor != "" {
		old = "revoke the old token: vault token revoke -accessor " + r.OldAccessor
	}
	kind := "orphan "
	if !o.Token.Orphan {
		kind = ""
	}
	if o.Token.Period != "" {
		kind += "periodic (" + o.Token.Period + ") "
	}
	var names []string
	for _, n := range r.Nodes {
		names = append(names, n.Node)
	}
	fmt.Fprint(w, "Nothing was written. Without --dry-run this command would\n\n")
	for i, step := range []string{
		fmt.Sprintf("create a new token: %swith policy %s", kind, strings.Join(o.Token.Policies, ", ")),
		fmt.Sprintf("write it to %s, field %s, and keep the other fields", r.Secret, o.Field),
		fmt.Sprintf("wait at most %s until these nodes serve with it: %s", o.Timeout, strings.Join(names, ", ")),
		old,
	} {
		text.Line(w, fmt.Sprintf("  %d. ", i+1), step)
	}
	for _, f := range r.Findings {
		text.Line(w, "\n", fmt.Sprintf("%s: %s", f.Severity, sentence(f)))
	}
	return nil
}

// where returns the flags that name secret and policies, if they are not the defaults.
func where(o rotate.Options) (flags string) {
	for _, f := range []struct{ name, value, usual string }{
		{"kv-mount", o.KVMount, "secret"}, {"kv-path", o.KVPath, "trousseau/config"}, {"field", o.Field, "vaulttoken"},
	} {
		if f.value != f.usual {
			flags += " --" + f.name + " " + f.value
		}
	}
	for _, p := range o.Token.Policies {
		if p != "trousseau" {
			flags += " --policy " + p
		}
	}
	if o.AnyPolicies {
		flags += " --any-policies"
	}
	if o.AllNodes {
		flags += " --all-nodes"
	}
	return flags
}
