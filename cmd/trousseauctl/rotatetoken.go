// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
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
		Short: "Replace Trousseau's token, and revoke the old one when every node has moved",
		Long: `The monthly task, for a Trousseau whose token a Vault Agent renders from a KV
secret: makes a new token, writes it to the secret, leaving the other fields as
they are, waits until every node serves it, and revokes the old one.

Each ADDR is host:port of a node's operator's pages, its --ops-addr. Name all
nodes: one that is left out loses its token. If a node cannot be asked, or serves
another token than the secret's, nothing is changed. If one has not moved within
--timeout, both tokens stay alive: exit code 3, and it says how to go on.

It needs an administrator's token, never Trousseau's: VAULT_ADDR, VAULT_TOKEN,
VAULT_CACERT and VAULT_NAMESPACE are as for the vault command.`,
		Example: `  trousseauctl rotate-token --dry-run 10.0.0.1:8095 10.0.0.2:8095 10.0.0.3:8095
  trousseauctl rotate-token --nodes-from nodes.txt --timeout 10m`,
	}
	flags := cmd.Flags()
	flags.StringVar(&nodesFrom, "nodes-from", "", "`file` with an ADDR on each line, instead of arguments; - is stdin")
	flags.BoolVar(&dryRun, "dry-run", false, "write nothing; say what would be done")
	flags.StringVar(&resume, "resume", "", "make no token: await the one in the secret, and revoke the one of this `accessor`")
	flags.DurationVar(&o.Timeout, "timeout", 5*time.Minute, "how long the nodes may take")
	flags.StringArrayVar(&o.Token.Policies, "policy", o.Token.Policies, "`name` of the new token's policy; may be repeated")
	flags.StringVar(&o.Token.Period, "period", "768h", "`duration` that the new token lives between renewals; empty for one that is not periodic")
	flags.StringVar(&o.Token.TTL, "ttl", "", "`duration` that a token that is not periodic lives")
	flags.BoolVar(&o.Token.Orphan, "orphan", true, "the new token survives the administrator's")
	flags.StringVar(&o.KVMount, "kv-mount", "secret", "`path` of the KV engine")
	flags.StringVar(&o.KVPath, "kv-path", "trousseau/config", "`path` of the secret in it")
	flags.StringVar(&o.Field, "field", "vaulttoken", "the secret's `field` with the token")
	out := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case o.Timeout <= 0:
			return usageError{fmt.Errorf("--timeout: %s is not a positive duration such as 5m", o.Timeout)}
		case len(args) == 0 && nodesFrom == "":
			return usageError{errors.New("ADDR is missing: name every node, such as 10.0.0.1:8095, or give --nodes-from; one that is left out loses its token")}
		case o.Token.Period != "" && o.Token.TTL != "":
			return usageError{errors.New("--ttl: a periodic token has none; give --period= with it")}
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
			fmt.Fprintf(cmd.ErrOrStderr(), "%s serves the new token, after %.1fs\n", n.Node, n.Seconds)
		}
		return rotateToken(cmd.Context(), cmd.OutOrStdout(), o, dryRun, resume, out)
	}
	return cmd
}

func rotateToken(ctx context.Context, w io.Writer, o rotate.Options, dryRun bool, resume string, out *output) error {
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
	table := func(w io.Writer) error { return printRotation(w, o, r) }
	if dryRun {
		table = func(w io.Writer) error { return printRotationPlan(w, o, r) }
	}
	if err := out.print(w, r, table); err != nil {
		return err
	}
	if r.Stuck != "" {
		return errFinding
	}
	return nil
}

func printRotation(w io.Writer, o rotate.Options, r rotate.Report) error {
	columns := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(columns, "NODE\tTOKEN\tAFTER")
	for _, n := range r.Nodes {
		if n.Moved {
			fmt.Fprintf(columns, "%s\tnew\t%.1fs\n", n.Node, n.Seconds)
		} else {
			fmt.Fprintf(columns, "%s\tnot new\t-\n", n.Node)
		}
	}
	if err := columns.Flush(); err != nil {
		return err
	}
	for _, n := range r.Nodes {
		if n.Reason != "" {
			fmt.Fprintf(w, "\n%s: %s\n", n.Node, n.Reason)
		}
	}
	fmt.Fprintf(w, "\nThe token in %s has accessor %s.\n", r.Secret, r.NewAccessor)
	switch {
	case r.Revoked:
		fmt.Fprintf(w, "The old one, of accessor %s, is revoked.\n", r.OldAccessor)
	case r.OldAccessor == "" && r.Stuck == "":
		fmt.Fprintln(w, "There was none alive before it, so none is revoked.")
	case r.OldAccessor == "":
		fmt.Fprintf(w, "%s. There is no old one to be revoked.\n", text.Capital(r.Stuck))
	default:
		fmt.Fprintf(w, `The old one is NOT revoked: %s.
To go on when that is mended:

  trousseauctl rotate-token%s --resume %s %s

To revoke it regardless, which takes the token from nodes that have not moved:

  vault token revoke -accessor %s
`, r.Stuck, where(o), r.OldAccessor, addresses(o.Nodes), r.OldAccessor)
	}
	return nil
}

func printRotationPlan(w io.Writer, o rotate.Options, r rotate.Report) error {
	old := "there is none alive to be revoked"
	if r.OldAccessor != "" {
		old = "revoke the old one: vault token revoke -accessor " + r.OldAccessor
	}
	kind := "orphan "
	if !o.Token.Orphan {
		kind = ""
	}
	if o.Token.Period != "" {
		kind += "periodic (" + o.Token.Period + ") "
	}
	_, err := fmt.Fprintf(w, `Nothing was written. Without --dry-run it would

  1. make a new token: %swith policy %s
  2. write it to %s, field %s, and leave the other fields as they are
  3. wait, %s at most, until these serve it: %s
  4. %s
`, kind, strings.Join(o.Token.Policies, ", "), r.Secret, o.Field, o.Timeout, addresses(o.Nodes), old)
	return err
}

// where are the flags that name the secret, as far as they are not the defaults.
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
