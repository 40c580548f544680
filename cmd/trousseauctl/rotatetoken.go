// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/trousseau-io/trousseau/internal/ctl/fleet"
	"github.com/trousseau-io/trousseau/internal/ctl/rotate"
	"github.com/trousseau-io/trousseau/internal/ctl/text"
	"github.com/trousseau-io/trousseau/internal/ctl/vaultadmin"
)

func newRotateToken() *cobra.Command {
	o := rotate.Options{Interval: time.Second, Token: vaultadmin.TokenOptions{Policies: []string{"trousseau"}}}
	var nodesFrom, resume string
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "rotate-token ADDR...",
		Short: "Replace Trousseau's token, and revoke the old one when every node uses the new one",
		Long: `For a Trousseau whose token a Vault Agent renders from a KV secret. Creates a new
token, writes it to the secret without changing the other fields, waits until
every node uses it, and revokes the old token. Run it before the token expires,
for example monthly.

Each ADDR is the host:port of a node's ops endpoints, its --ops-addr. Name all
nodes: a node that you leave out loses its token. If a node does not answer, or
uses another token than the one in the secret, nothing is changed. If a node does
not use the new token within --timeout, both tokens stay valid, the exit code is
3, and the output says how to resume.

It needs an administrator's token, not Trousseau's. VAULT_ADDR, VAULT_TOKEN,
VAULT_CACERT and VAULT_NAMESPACE work as for the vault command.`,
		Example: `  trousseauctl rotate-token --dry-run 10.0.0.1:8095 10.0.0.2:8095 10.0.0.3:8095
  trousseauctl rotate-token --nodes-from nodes.txt --timeout 10m`,
	}
	flags := cmd.Flags()
	flags.StringVar(&nodesFrom, "nodes-from", "", "`file` with one ADDR per line, instead of arguments; - for stdin")
	flags.BoolVar(&dryRun, "dry-run", false, "write nothing; print what would be done")
	flags.StringVar(&resume, "resume", "", "complete an earlier rotation: wait for the token in the secret, and revoke the token of this `accessor`")
	flags.DurationVar(&o.Timeout, "timeout", 5*time.Minute, "time limit for all nodes to use the new token")
	flags.StringArrayVar(&o.Token.Policies, "policy", o.Token.Policies, "policy `name` for the new token; may be repeated")
	flags.StringVar(&o.Token.Period, "period", "768h", "maximum `duration` between renewals of the new token; empty for a token without a period")
	flags.StringVar(&o.Token.TTL, "ttl", "", "lifetime, a `duration`, of a token without a period")
	flags.BoolVar(&o.Token.Orphan, "orphan", true, "orphan token, which stays valid when the administrator's token ends")
	flags.StringVar(&o.KVMount, "kv-mount", "secret", "`path` of the KV engine")
	flags.StringVar(&o.KVPath, "kv-path", "trousseau/config", "`path` of the secret in the KV engine")
	flags.StringVar(&o.Field, "field", "vaulttoken", "`field` of the secret with the token")
	out := outputFlag(cmd, "RotateToken")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case o.Timeout <= 0:
			return usageError{fmt.Errorf("--timeout: %s is not a positive duration such as 5m", o.Timeout)}
		case len(args) == 0 && nodesFrom == "":
			return usageError{errors.New("ADDR is missing: name every node, such as 10.0.0.1:8095, or give --nodes-from; a node that you leave out loses its token")}
		case o.Token.Period != "" && o.Token.TTL != "":
			return usageError{errors.New("--ttl: a periodic token has no TTL; add --period=")}
		case dryRun && resume != "":
			return usageError{errors.New("give --dry-run or --resume, not both")}
		}
		var err error
		if o.Nodes, err = nodes(cmd.InOrStdin(), args, nodesFrom); err != nil {
			return err
		}
		if o.Vault, err = administrator(); err != nil {
			return err
		}
		o.Moved = func(n rotate.Node) {
			fmt.Fprintf(cmd.ErrOrStderr(), "%s uses the new token after %.1fs\n", n.Node, n.Seconds)
		}
		return rotateToken(cmd, o, dryRun, resume, out)
	}
	return cmd
}

func rotateToken(cmd *cobra.Command, o rotate.Options, dryRun bool, resume string, out *output) error {
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
	return out.report(cmd, r, r.Stuck == "", func(w io.Writer, _ painter) error {
		if dryRun {
			return printRotationPlan(w, o, r)
		}
		return printRotation(w, o, r)
	})
}

func printRotation(w io.Writer, o rotate.Options, r rotate.Report) error {
	fmt.Fprintln(w, "NODE\tTOKEN\tAFTER")
	for _, n := range r.Nodes {
		if n.Moved {
			fmt.Fprintf(w, "%s\tnew\t%.1fs\n", n.Node, n.Seconds)
		} else {
			fmt.Fprintf(w, "%s\told\t-\n", n.Node)
		}
	}
	for _, n := range r.Nodes {
		if n.Reason != "" {
			fmt.Fprintf(w, "\n%s: %s\n", n.Node, n.Reason)
		}
	}
	fmt.Fprintf(w, "\nThe token in %s has accessor %s.\n", r.Secret, r.NewAccessor)
	switch {
	case r.Revoked:
		fmt.Fprintf(w, "The old token, with accessor %s, is revoked.\n", r.OldAccessor)
	case r.OldAccessor == "" && r.Stuck == "":
		fmt.Fprintln(w, "There was no valid token before it, so none is revoked.")
	case r.OldAccessor == "":
		fmt.Fprintf(w, "%s. There is no old token to revoke.\n", text.Capital(r.Stuck))
	default:
		fmt.Fprintf(w, `The old token is NOT revoked: %s.
When that is fixed, resume:

  trousseauctl rotate-token%s --resume %s %s

To revoke it anyway, although nodes with the old token then fail:

  vault token revoke -accessor %s
`, r.Stuck, where(o), r.OldAccessor, addresses(o.Nodes), r.OldAccessor)
	}
	return nil
}

func printRotationPlan(w io.Writer, o rotate.Options, r rotate.Report) error {
	old := "revoke nothing, because there is no valid old token"
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
	_, err := fmt.Fprintf(w, `Nothing was written. Without --dry-run this command would

  1. create a new token: %swith policy %s
  2. write it to %s, field %s, and keep the other fields
  3. wait at most %s until these nodes use it: %s
  4. %s
`, kind, strings.Join(o.Token.Policies, ", "), r.Secret, o.Field, o.Timeout, addresses(o.Nodes), old)
	return err
}

// where returns the flags that name the secret, if they are not the defaults.
func where(o rotate.Options) (flags string) {
	for _, f := range []struct{ name, value, usual string }{
		{"kv-mount", o.KVMount, "secret"}, {"kv-path", o.KVPath, "trousseau/config"}, {"field", o.Field, "vaulttoken"},
	} {
		if f.value != f.usual {
			flags += " --" + f.name + " " + f.value
		}
	}
	return flags
}

func addresses(nodes []fleet.Node) string {
	var all []string
	for _, n := range nodes {
		all = append(all, n.String())
	}
	return strings.Join(all, " ")
}
