// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/trousseau-io/trousseau/internal/ctl/setup"
)

func newPolicy() *cobra.Command {
	o := setup.Defaults()
	var namespace string
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Print the least policy that Trousseau needs",
		Long: `Prints the Vault policy with which Trousseau can do its work and nothing else:
encrypt with the first key, decrypt with each, and read each, for noticing a
rotation. It asks nobody.

--namespace is that of the transit engine, seen from the namespace that the
policy is written in: leave it out if they are the same.`,
		Example: `  trousseauctl policy
  trousseauctl policy | vault policy write trousseau -
  trousseauctl policy --key kek-2026 --key trousseau-kms-vault --transit-mount team/transit`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.WithoutKubernetes = true
			if err := o.Validate(); err != nil {
				return usageError{err}
			}
			_, err := io.WriteString(cmd.OutOrStdout(), setup.Policy(namespace, o.TransitMount, o.Keys))
			return err
		},
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&o.Keys, "key", o.Keys, "transit `key`, the one that encrypts first; may be repeated")
	flags.StringVar(&o.TransitMount, "transit-mount", o.TransitMount, "`path` of the transit engine")
	flags.StringVar(&namespace, "namespace", "", "Vault `namespace` of the transit engine")
	return cmd
}
