// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/trousseau-io/trousseau/internal/ctl/finding"
	"github.com/trousseau-io/trousseau/internal/ctl/setup"
	"github.com/trousseau-io/trousseau/internal/ctl/text"
	"github.com/trousseau-io/trousseau/internal/ctl/vaultadmin"
)

func newSetup() *cobra.Command {
	o := setup.Defaults()
	var dryRun bool
	var cluster string
	cmd := &cobra.Command{
		Use:   "setup",
		Short: "Prepare Vault: engine, key, policies, token, Kubernetes login",
		Long: `Creates in Vault what Trousseau needs: the transit engine and its key, the
policies of Trousseau and of the Vault Agent, the KV secret with Trousseau's
token, and the Kubernetes auth method with the agent's role. With --login
Trousseau logs in itself: there is no KV secret and no token, and the role has
Trousseau's policy.

The command is idempotent. It adds what is missing, and takes nothing away: no path
of a policy, no value of the role, nothing of the auth method's configuration. What
it finds beyond its needs is a warning, with the --remove that takes it away. It
never changes an existing KV secret. It refuses harmful changes: a key of another
type, or one that is exportable or derived; a secret that names another key; the
auth method of another cluster; with --login the agent's role, and without it
Trousseau's role.

For several clusters on one Vault, give --cluster a name for each. It appends -NAME
to the default names of key, policies, role, KV path and auth method, so that no
cluster can use another one's key or read its secret. The other commands take the
same --cluster.

If a step fails, the command prints what is done, what failed and what is left. Run
it again to continue. The exit code is 3 if Trousseau's token is missing, revoked or
expired.

It needs an administrator's token, not Trousseau's. VAULT_ADDR, VAULT_TOKEN,
VAULT_CACERT and VAULT_NAMESPACE work as for the vault command. --dry-run writes
nothing, and prints the plan as a script of vault commands.`,
		Example: `  trousseauctl setup --dry-run --without-kubernetes
  trousseauctl setup --kubernetes-host https://10.0.0.1:6443 \
    --kubernetes-ca /etc/kubernetes/pki/ca.crt
  trousseauctl setup --cluster blue --dry-run --without-kubernetes
  trousseauctl setup --login --kubernetes-host https://10.0.0.1:6443 \
    --kubernetes-ca /etc/kubernetes/pki/ca.crt`,
		Args: noArguments,
	}
	flags := cmd.Flags()
	flags.BoolVar(&dryRun, "dry-run", false, "write nothing; print the plan and its vault commands")
	clusterFlag(cmd, &cluster)
	flags.StringArrayVar(&o.Remove, "remove", nil, "take away `what`: a path of a policy, or FIELD=VALUE of the role; may be repeated")
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
		if err := useCluster(cmd, cluster); err != nil {
			return err
		}
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
		vault, err := administrator(cmd.Context())
		if err != nil {
			return err
		}
		o.PluginAddress = cmp.Or(o.PluginAddress, vault.Address())
		return setUp(cmd, vault, o, dryRun, out)
	}
	return cmd
}

// administrator returns a client for the Vault that the environment names, or the
// inventory of clusters.
func administrator(ctx context.Context) (*vaultadmin.Client, error) {
	config, err := vaultadmin.FromEnvironment(getenv(ctx))
	if err != nil {
		return nil, err
	}
	return vaultadmin.Dial(config)
}

// clusterFlag adds --cluster to a command.
func clusterFlag(cmd *cobra.Command, cluster *string) {
	cmd.Flags().StringVar(cluster, "cluster", "", "`name` of the cluster, if several use this Vault; part of the default names")
}

// useCluster gives the flags that the user has not set the names for a cluster.
func useCluster(cmd *cobra.Command, cluster string) error {
	if cluster == "" {
		return nil
	}
	names, err := setup.ForCluster(cluster)
	if err != nil {
		return usageError{err}
	}
	for name, value := range names {
		if f := cmd.Flags().Lookup(name); f != nil && !f.Changed {
			if err := f.Value.Set(value); err != nil {
				return err
			}
		}
	}
	return nil
}

// setUpReport is what setup prints. Done, Failed and Left count steps.
type setUpReport struct {
	DryRun bool `json:"dryRun,omitempty"`
	Done   int  `json:"done"`
	Failed int  `json:"failed"`
	Left   int  `json:"left"`
	setup.Plan
}

func setUp(cmd *cobra.Command, vault setup.Vault, o setup.Options, dryRun bool, out *output) error {
	plan, err := setup.Make(cmd.Context(), vault, o)
	if err != nil {
		return err
	}
	if !dryRun {
		err = plan.Apply(cmd.Context())
	}
	r := setUpReport{dryRun, plan.Count(setup.Done), plan.Count(setup.Failed), plan.Count(setup.Left), plan}
	return out.write(cmd, result{Report: r, Findings: plan.Findings, Err: err}, func(w io.Writer, _ painter) error {
		if dryRun {
			return printScript(w, r)
		}
		return printSteps(w, r)
	})
}

var verbs = map[setup.Action]string{setup.Create: "created", setup.Change: "changed"}

func printSteps(w io.Writer, r setUpReport) error {
	for _, s := range r.Steps {
		word := string(s.State)
		if s.State == setup.Done {
			word = verbs[s.Action]
		}
		text.Line(w, fmt.Sprintf("%-8s ", word), s.What)
		if s.Action == setup.Keep {
			continue
		}
		for _, detail := range s.Details {
			text.Line(w, "           ", detail)
		}
	}
	for _, f := range r.Findings {
		text.Line(w, "", fmt.Sprintf("%s: %s", f.Severity, sentence(f)))
	}
	line := "Nothing to do: everything exists.\n"
	switch {
	case r.Failed > 0:
		line = fmt.Sprintf("%d created or changed, %d failed, %d left: run this again to continue.\n", r.Done, r.Failed, r.Left)
	case r.Done > 0:
		line = fmt.Sprintf("%d created or changed.\n", r.Done)
	case len(r.Findings) > 0:
		line = "Nothing was changed.\n"
	}
	_, err := io.WriteString(w, line)
	return err
}

// sentence is a finding on one line.
func sentence(f finding.Finding) string {
	return strings.TrimSuffix(f.Subject+": "+f.Text+": "+f.Do, ": ")
}

// printScript prints a plan so that a shell can run it.
func printScript(w io.Writer, r setUpReport) error {
	fmt.Fprintf(w, "# %d to be created or changed; nothing was written.\n", r.Left)
	if r.Left > 0 {
		fmt.Fprintln(w, "set -eu")
	}
	for _, s := range r.Steps {
		fmt.Fprintf(w, "\n# %s: %s\n", s.Action, s.What)
		for _, detail := range s.Details {
			fmt.Fprintf(w, "#   %s\n", detail)
		}
		if s.Command != "" {
			fmt.Fprintln(w, s.Command)
		}
	}
	for _, f := range r.Findings {
		fmt.Fprintf(w, "\n# %s: %s\n", f.Severity, sentence(f))
	}
	return nil
}
