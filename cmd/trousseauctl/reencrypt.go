// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/time/rate"

	"github.com/trousseau-io/trousseau/internal/ctl/apiserver"
	"github.com/trousseau-io/trousseau/internal/ctl/reencrypt"
)

func newReencrypt() *cobra.Command {
	var f reencryptFlags
	cmd := &cobra.Command{
		Use:   "reencrypt --kubeconfig FILE",
		Short: "Re-encrypt objects that are not under the current key_id, through kube-apiserver",
		Long: `Sends an empty patch for each object. kube-apiserver then writes the objects that
are stored under an older key_id, in the clear, or by another provider than the
first in EncryptionConfiguration, and no others. Concurrent updates are never
lost. This command reads only metadata, never the value of a Secret.

It refuses to start unless all plugins are healthy and have the same key_id, and
every API server knows that key_id, according to its metrics. An API server that
does not know it yet would silently skip objects. Each provider of an API server
learns the key_id by itself: all of them must know it. If one of them is not
Trousseau, give --encryption-config, the file that every API server has loaded, as
their metrics confirm: then those that write the resources must know it. The
checks are repeated during the run. After the first write, the metrics must show
that it was by the right provider.

The plugins are found in the cluster, as by status, or given with --ops. The API
servers are found through the Service kubernetes, or given with --api-server.

--via says who sends the patches:
- walk: this command. It reaches every object, and names those that are refused.
- migration: kube-controller-manager, by a StorageVersionMigration of
  storagemigration.k8s.io/v1 (Kubernetes 1.37). It stops at the first refusal, and
  its success does not prove that no object was skipped: give --endpoints.
- auto: migration where the cluster serves it, and walk if it fails. With --state,
  --rate or --concurrency, which a migration does not have, it is walk.

With --state the command resumes from a checkpoint at most 10 s old, even after
SIGKILL. Without it, the next run starts over. In neither case is an object
written twice. Delete the state file if you restore etcd.

If the key is rotated during the run, it starts over under the new version. Runs
at the same time do no harm.

With --endpoints it finds in etcd which objects to rewrite, instead of patching
every object, and audits etcd at the end, as trousseauctl audit does. If nothing
is stale there, it does nothing.

It needs the verbs list and patch on the resources, get on namespaces for
--state, create, get and delete on storageversionmigrations for a migration, and
get on the nonResourceURLs /metrics and /readyz/*. If an admission webhook or
policy refuses an object, it is listed and stays unchanged. --dry-run sends every
patch as a dry run: kube-apiserver says what it would refuse, and writes nothing.

Exit code 3 if an object could not be rewritten, if another provider writes a
resource, if the audit finds an object that is not under the current key_id, or if
it has any other finding.`,
		Example: `  trousseauctl reencrypt --kubeconfig /etc/kubernetes/admin.conf
  trousseauctl reencrypt --kubeconfig admin.conf --dry-run
  trousseauctl reencrypt --kubeconfig admin.conf --resources secrets \
    --ops 10.0.0.1,10.0.0.2,10.0.0.3 --rate 100/s --state reencrypt.json
  trousseauctl reencrypt --kubeconfig admin.conf \
    --api-server https://10.0.0.1:6443,https://10.0.0.2:6443 --ops 10.0.0.1,10.0.0.2 \
    --endpoints https://10.0.0.1:2379 --cacert ca.crt --cert client.crt --key client.key`,
		Args: noArguments,
	}
	f.register(cmd, "`URLs` of etcd's servers, to find in etcd which objects to rewrite", 0)
	cmd.Flags().StringVar(&f.state, "state", "", "checkpoint `file`, from which the next run resumes; removed when all is done")
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "write nothing; have kube-apiserver check every patch")
	out := outputFlag(cmd, "Reencrypt")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if f.dryRun && f.state != "" {
			return usageError{errors.New("give --dry-run or --state, not both")}
		}
		options, err := f.options(cmd)
		if err != nil {
			return err
		}
		progress := f.tell(cmd, &options)
		r, findings, err := f.run(cmd.Context(), options, progress)
		progress.end()
		return out.write(cmd, result{Report: r, Findings: findings, Err: err}, func(w io.Writer, paint painter) error {
			return printReencrypted(w, r, findings, paint)
		})
	}
	return cmd
}

// reencryptFlags are the flags of reencrypt.
type reencryptFlags struct {
	nodes            nodeFlags
	resources        []string
	via              string
	rate             string
	concurrency      int
	maxRefusals      int
	state            string
	dryRun           bool
	apiServers       []string
	encryptionConfig string
	wait             time.Duration
	etcd             etcdFlags
}

var vias = []string{string(reencrypt.Auto), string(reencrypt.Walk), string(reencrypt.Migration)}

// register adds the flags that rotate-key has too.
func (f *reencryptFlags) register(cmd *cobra.Command, endpoints string, wait time.Duration) {
	flags := cmd.Flags()
	f.nodes.register(flags)
	flags.StringSliceVar(&f.resources, "resources", []string{"secrets"}, "resources to rewrite, as in EncryptionConfiguration: also *. for the core group, *.apps, and *.* for all")
	flags.StringVar(&f.via, "via", vias[0], "who rewrites: auto, walk for this command, or migration for kube-controller-manager")
	flags.StringVar(&f.rate, "rate", "50/s", "maximum patch `rate`, per second, minute or hour, such as 50/s, 600/m or 20000/h")
	flags.IntVar(&f.concurrency, "concurrency", 8, "maximum number of concurrent patches")
	flags.IntVar(&f.maxRefusals, "max-refusals", 200, "refusals in a row that end a resource, because they have one cause; 0 for no limit")
	flags.StringSliceVar(&f.apiServers, "api-server", nil, "`URL` of every API server, not of a load balancer (default: from the Service kubernetes)")
	flags.StringVar(&f.encryptionConfig, "encryption-config", "", "EncryptionConfiguration `file` that every API server has loaded, which says who writes a resource")
	flags.DurationVar(&f.wait, "wait", wait, "time to wait for the API servers to learn the current key_id")
	f.etcd.register(cmd, endpoints)
	_ = cmd.RegisterFlagCompletionFunc("via", cobra.FixedCompletions(vias, cobra.ShellCompDirectiveNoFileComp))
}

// check reports a mistake on the command line.
func (f *reencryptFlags) check() (limit rate.Limit, err error) {
	switch {
	case f.concurrency < 1:
		return 0, fmt.Errorf("--concurrency: %d is less than 1", f.concurrency)
	case f.maxRefusals < 0:
		return 0, fmt.Errorf("--max-refusals: %d is negative; 0 is no limit", f.maxRefusals)
	case f.wait < 0:
		return 0, fmt.Errorf("--wait: %s is negative; give a duration such as 2m", f.wait)
	case len(f.resources) == 0:
		return 0, errors.New("--resources: name at least one, such as secrets")
	case !slices.Contains(vias, f.via):
		return 0, fmt.Errorf("--via: %q is none of %s", f.via, strings.Join(vias, ", "))
	}
	if limit, err = reencrypt.ParseRate(f.rate); err != nil {
		return 0, fmt.Errorf("--rate: %w", err)
	}
	for _, r := range f.resources {
		if name := strings.TrimPrefix(r, "*."); name != "" && strings.ContainsAny(name, "/* ") && r != "*.*" || r == "" {
			return 0, fmt.Errorf("--resources: %q is not a resource such as secrets, widgets.example.com or *.apps", r)
		}
	}
	for _, u := range f.apiServers {
		if !isURL(u) {
			return 0, fmt.Errorf("--api-server: %q is not a URL such as https://10.0.0.1:6443", u)
		}
	}
	return limit, f.etcd.check()
}

func (f *reencryptFlags) options(cmd *cobra.Command) (reencrypt.Options, error) {
	limit, err := f.check()
	if err != nil {
		return reencrypt.Options{}, usageError{err}
	}
	options := reencrypt.Options{
		APIServers: f.apiServers, Resources: f.resources, Via: reencrypt.Via(f.via), DryRun: f.dryRun,
		Rate: limit, Concurrency: f.concurrency, MaxRefusals: f.maxRefusals, State: f.state, Wait: f.wait,
	}
	for _, flag := range []string{"state", "rate", "concurrency"} {
		if !cmd.Flags().Changed(flag) {
			continue
		}
		if options.Via == reencrypt.Migration {
			return options, usageError{fmt.Errorf("--%s: a migration has none; use --via walk", flag)}
		}
		options.Via = reencrypt.Walk
	}
	if options.Plugins, err = f.nodes.options(cmd, nil); err != nil {
		return options, err
	}
	if options.Config, err = apiserver.Kubeconfig(f.nodes.cluster.kubeconfig, f.nodes.cluster.context); err != nil {
		return options, err
	}
	if f.encryptionConfig != "" {
		if options.EncryptionConfig, err = os.ReadFile(f.encryptionConfig); err != nil {
			return options, fmt.Errorf("--encryption-config: %w", err)
		}
	}
	if f.etcd.given() {
		options.Stale = f.stale
	}
	return options, nil
}

// tell shows on stderr how far the work is, and why it waits.
func (f *reencryptFlags) tell(cmd *cobra.Command, options *reencrypt.Options) *progress {
	progress := newProgress(cmd.Context(), cmd.ErrOrStderr())
	progress.tell("starting", 0, 0)
	options.Progress = func(resource string, done, total int64) { progress.tell("rewriting "+resource, done, total) }
	options.Waiting = func(reason string) {
		progress.end()
		fmt.Fprintln(cmd.ErrOrStderr(), "waiting: "+reason)
		progress.tell("waiting", 0, 0)
	}
	return progress
}
