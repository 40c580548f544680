// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/trousseau-io/trousseau/internal/ctl/setup"
	"github.com/trousseau-io/trousseau/internal/ctl/vaultadmin"
)

func newSetup() *cobra.Command {
	o := setup.Defaults()
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "setup",
		Short: "Prepare Vault: engine, key, policies, token, Kubernetes login",
		Long: `Creates in Vault what Trousseau needs: the transit engine and its key, the
policies of Trousseau and of the Vault Agent, the KV secret with Trousseau's
token, and the Kubernetes auth method with the agent's role. With --login
Trousseau logs in itself: there is no KV secret and no token, and the role has
Trousseau's policy.

The command is idempotent: it keeps or corrects what exists, and never changes an
existing KV secret. It refuses harmful changes: a key of another type, or one that
is exportable or derived; a secret that names another key; the auth method of
another cluster; with --login the agent's role, and without it Trousseau's role.

It needs an administrator's token, not Trousseau's. VAULT_ADDR, VAULT_TOKEN,
VAULT_CACERT and VAULT_NAMESPACE work as for the vault command. --dry-run writes
nothing, and prints the plan as a script of vault commands.`,
		Example: `  trousseauctl setup --dry-run --without-kubernetes
  trousseauctl setup --kubernetes-host https://10.0.0.1:6443 \
    --kubernetes-ca /etc/kubernetes/pki/ca.crt
  trousseauctl setup --login --kubernetes-host https://10.0.0.1:6443 \
    --kubernetes-ca /etc/kubernetes/pki/ca.crt`,
		Args: noArguments,
	}
	flags := cmd.Flags()
	flags.BoolVar(&dryRun, "dry-run", false, "write nothing; print the plan and its vault commands")
	flags.BoolVar(&o.Login, "login", false, "set up for a Trousseau that logs in itself, without an agent")
	flags.StringArrayVar(&o.Keys, "key", o.Keys, "transit `key`; may be repeated, and the first key encrypts")
	flags.StringVar(&o.TransitMount, "transit-mount", o.TransitMount, "`path` of the transit engine")
	flags.StringVar(&o.Policy, "policy", o.Policy, "`name` of Trousseau's policy")
	flags.StringVar(&o.AgentPolicy, "agent-policy", o.AgentPolicy, "`name` of the agent's policy")
	flags.StringVar(&o.KVMount, "kv-mount", o.KVMount, "`path` of the KV engine")
	flags.StringVar(&o.KVPath, "kv-path", o.KVPath, "`path` of the secret in the KV engine")
	flags.StringVar(&o.Period, "period", o.Period, "maximum `duration` between renewals of Trousseau's token")
	flags.StringVar(&o.PluginAddress, "plugin-address", "", "`URL` at which Trousseau reaches Vault (default VAULT_ADDR)")
	flags.BoolVar(&o.WithoutKubernetes, "without-kubernetes", false, "do not set up the Kubernetes auth method")
	flags.StringVar(&o.KubernetesHost, "kubernetes-host", "", "`URL` at which Vault reaches the API server")
	flags.StringVar(&o.KubernetesCAFile, "kubernetes-ca", "", "`file` with the API server's CA")
	flags.StringVar(&o.AuthMount, "auth-mount", o.AuthMount, "`path` of the Kubernetes auth method")
	flags.StringVar(&o.Role, "role", o.Role, "`name` of the auth method's role")
	flags.StringVar(&o.ServiceAccount, "service-account", o.ServiceAccount, "`name` of the ServiceAccount bound to the role")
	flags.StringVar(&o.ServiceAccountNamespace, "service-account-namespace", o.ServiceAccountNamespace, "Kubernetes `namespace` of the ServiceAccount bound to the role")
	out := outputFlag(cmd, "Setup")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if o.KubernetesCAFile != "" {
			pem, err := os.ReadFile(o.KubernetesCAFile)
			if err != nil {
				return fmt.Errorf("--kubernetes-ca: %w", err)
			}
			o.KubernetesCA = string(pem)
		}
		if err := o.Validate(); err != nil {
			return usageError{err}
		}
		vault, err := administrator()
		if err != nil {
			return err
		}
		o.PluginAddress = cmp.Or(o.PluginAddress, vault.Address())
		return setUp(cmd, vault, o, dryRun, out)
	}
	return cmd
}

// administrator returns a client for the Vault that the environment names.
func administrator() (*vaultadmin.Client, error) {
	config, err := vaultadmin.FromEnvironment(os.Getenv)
	if err != nil {
		return nil, err
	}
	return vaultadmin.Dial(config)
}

// setUpReport is what setup prints.
type setUpReport struct {
	DryRun  bool         `json:"dryRun,omitempty"`
	Changes int          `json:"changes"`
	Steps   []setup.Step `json:"steps"`
}

func setUp(cmd *cobra.Command, vault setup.Vault, o setup.Options, dryRun bool, out *output) error {
	ctx := cmd.Context()
	plan, err := setup.Make(ctx, vault, o)
	if err != nil {
		return err
	}
	r := setUpReport{DryRun: dryRun, Changes: plan.Changes(), Steps: plan.Steps}
	if dryRun {
		return out.write(cmd, result{Report: r}, func(w io.Writer, _ painter) error { return printScript(w, plan) })
	}
	r.Steps = []setup.Step{}
	failure := plan.Apply(ctx, func(s setup.Step) {
		r.Steps = append(r.Steps, s)
		if out.table() {
			printStep(cmd.OutOrStdout(), s)
		}
	})
	r.Changes = setup.Plan{Steps: r.Steps}.Changes()
	if failure != nil {
		failure = fmt.Errorf("%w\nThe steps above are done; run this again to continue", failure)
	}
	return out.write(cmd, result{Report: r, Err: failure}, func(w io.Writer, _ painter) error { return printChanges(w, r.Changes) })
}

var done = map[setup.Action]string{setup.Create: "created", setup.Change: "changed", setup.Keep: "kept"}

func printStep(w io.Writer, s setup.Step) {
	fmt.Fprintf(w, "%-8s %s\n", done[s.Action], s.What)
	if s.Hint != "" {
		fmt.Fprintf(w, "           %s\n", s.Hint)
	}
	if s.Action == setup.Keep {
		return
	}
	for _, detail := range s.Details {
		fmt.Fprintf(w, "           %s\n", detail)
	}
}

func printChanges(w io.Writer, n int) error {
	text := "Nothing to do: everything exists.\n"
	if n > 0 {
		text = fmt.Sprintf("%d created or changed.\n", n)
	}
	_, err := io.WriteString(w, text)
	return err
}

// printScript prints a plan so that a shell can run it.
func printScript(w io.Writer, p setup.Plan) error {
	fmt.Fprintf(w, "# %d to be created or changed; nothing was written.\n", p.Changes())
	if p.Changes() > 0 {
		fmt.Fprintln(w, "set -eu")
	}
	for _, s := range p.Steps {
		fmt.Fprintf(w, "\n# %s: %s\n", s.Action, s.What)
		for _, detail := range s.Details {
			fmt.Fprintf(w, "#   %s\n", detail)
		}
		if s.Hint != "" {
			fmt.Fprintf(w, "#   %s\n", s.Hint)
		}
		if s.Command != "" {
			fmt.Fprintln(w, s.Command)
		}
	}
	return nil
}
