// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/trousseau-io/trousseau/internal/ctl/setup"
)

func newPolicy() *cobra.Command {
	o := setup.Defaults()
	var cluster string
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Print the minimal Vault policy for Trousseau",
		Long: `Prints the minimal Vault policy for Trousseau: encrypt with the first key, and
decrypt with and read every key. Trousseau reads a key to notice its rotation. The
command makes no network calls.

--namespace is the namespace of the transit engine, relative to that of the
policy. Omit it if they are the same.`,
		Example: `  trousseauctl policy
  trousseauctl policy | vault policy write trousseau -
  trousseauctl policy --key kek-2026 --key trousseau-kms-vault --transit-mount team/transit`,
		Args: noArguments,
	}
	clusterFlag(cmd, &cluster)
	flags := cmd.Flags()
	flags.StringArrayVar(&o.Keys, "key", o.Keys, "transit `key`; may be repeated, and the first key encrypts")
	flags.StringVar(&o.TransitMount, "transit-mount", o.TransitMount, "`path` of the transit engine")
	flags.StringVar(&o.Namespace, "namespace", "", "Vault `namespace` of the transit engine, if it differs from that of the policy")
	out := outputFlag(cmd, "Policy")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := useCluster(cmd, cluster); err != nil {
			return err
		}
		o.WithoutKubernetes = true
		if err := o.Validate(); err != nil {
			return usageError{err}
		}
		report := policyReport{o.PolicyText()}
		return out.write(cmd, result{Report: report}, func(w io.Writer, _ painter) error {
			_, err := io.WriteString(w, report.Policy)
			return err
		})
	}
	return cmd
}

// policyReport is what policy prints.
type policyReport struct {
	// Policy is in Vault's HCL.
	Policy string `json:"policy"`
}
