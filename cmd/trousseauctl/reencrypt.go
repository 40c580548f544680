// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/time/rate"

	"github.com/trousseau-io/trousseau/internal/ctl/apiserver"
	"github.com/trousseau-io/trousseau/internal/ctl/fleet"
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

It refuses to start unless all plugins (--ops) are healthy and have the same
key_id, and every API server knows that key_id, according to its metrics. An API
server that does not know it yet would silently skip objects. The API servers are
found through the Service kubernetes, or given with --api-server. The checks are
repeated during the run.

With --state the command resumes from a checkpoint at most 10 s old, even after
SIGKILL. Without it, the next run starts over. In neither case is an object
written twice. Delete the state file if you restore etcd.

With --endpoints it finds in etcd which objects to rewrite, instead of patching
every object, and audits etcd at the end, as trousseauctl audit does.

It needs the verbs list and patch on the resources, get on namespaces for
--state, and get on the nonResourceURLs /metrics and /readyz/*. If an admission
webhook refuses an object, it is listed and stays unchanged.

Exit code 3 if an object could not be rewritten, if the audit finds an object that
is not under the current key_id, or if it has any other finding.`,
		Example: `  trousseauctl reencrypt --kubeconfig /etc/kubernetes/admin.conf
  trousseauctl reencrypt --kubeconfig admin.conf --resources secrets,configmaps \
    --ops 10.0.0.1,10.0.0.2,10.0.0.3 --rate 100/s --state reencrypt.json
  trousseauctl reencrypt --kubeconfig admin.conf \
    --api-server https://10.0.0.1:6443,https://10.0.0.2:6443 --ops 10.0.0.1,10.0.0.2 \
    --endpoints https://10.0.0.1:2379 --cacert ca.crt --cert client.crt --key client.key`,
		Args: noArguments,
	}
	f.register(cmd)
	out := outputFlag(cmd, "Reencrypt")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		options, err := f.options()
		if err != nil {
			return err
		}
		progress := newProgress(cmd.Context(), cmd.ErrOrStderr())
		progress.tell("starting", 0, 0)
		options.Progress = func(resource string, done, total int64) { progress.tell("rewriting "+resource, done, total) }
		options.Waiting = func(reason string) {
			progress.end()
			fmt.Fprintln(cmd.ErrOrStderr(), "waiting: "+reason)
			progress.tell("waiting", 0, 0)
		}
		result, err := f.run(cmd.Context(), options, progress)
		progress.end()
		if err != nil {
			return err
		}
		return out.report(cmd, result, result.OK, func(w io.Writer, paint painter) error {
			return printReencrypted(w, result, paint)
		})
	}
	return cmd
}

// reencryptFlags are the flags of reencrypt.
type reencryptFlags struct {
	kubeconfig  string
	resources   []string
	rate        string
	concurrency int
	state       string
	apiServers  []string
	ops         []string
	wait        time.Duration
	etcd        etcdFlags
}

func (f *reencryptFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.kubeconfig, "kubeconfig", "", "kubeconfig `file`; its current context is used")
	flags.StringSliceVar(&f.resources, "resources", []string{"secrets"}, "resources to rewrite, named as in EncryptionConfiguration")
	flags.StringVar(&f.rate, "rate", "50/s", "maximum patch `rate`, per second, minute or hour, such as 50/s, 600/m or 20000/h")
	flags.IntVar(&f.concurrency, "concurrency", 8, "maximum number of concurrent patches")
	flags.StringVar(&f.state, "state", "", "checkpoint `file`, from which the next run resumes; removed when all is done")
	flags.StringSliceVar(&f.apiServers, "api-server", nil, "`URL` of every API server, not of a load balancer (default: from the Service kubernetes)")
	flags.StringSliceVar(&f.ops, "ops", []string{fleet.DefaultAddr}, "`ADDR` of the ops endpoints of every plugin, as in status")
	flags.DurationVar(&f.wait, "wait", 0, "time to wait for the API servers to learn the current key_id")
	f.etcd.register(cmd, "`URLs` of etcd's servers, to find in etcd which objects to rewrite")
}

// check reports a mistake on the command line.
func (f *reencryptFlags) check() (limit rate.Limit, plugins []fleet.Node, err error) {
	switch {
	case f.kubeconfig == "":
		return 0, nil, errors.New("--kubeconfig is missing: give a file, such as /etc/kubernetes/admin.conf")
	case f.concurrency < 1:
		return 0, nil, fmt.Errorf("--concurrency: %d is less than 1", f.concurrency)
	case f.wait < 0:
		return 0, nil, fmt.Errorf("--wait: %s is negative; give a duration such as 2m", f.wait)
	case len(f.resources) == 0:
		return 0, nil, errors.New("--resources: name at least one, such as secrets")
	case len(f.ops) == 0:
		return 0, nil, errors.New("--ops: give the address of at least one plugin, such as " + fleet.DefaultAddr)
	}
	if limit, err = reencrypt.ParseRate(f.rate); err != nil {
		return 0, nil, fmt.Errorf("--rate: %w", err)
	}
	if err := checkResources("--resources", f.resources); err != nil {
		return 0, nil, err
	}
	for _, u := range f.apiServers {
		if !isURL(u) {
			return 0, nil, fmt.Errorf("--api-server: %q is not a URL such as https://10.0.0.1:6443", u)
		}
	}
	if plugins, err = fleet.ParseNodes(f.ops); err != nil {
		return 0, nil, fmt.Errorf("--ops: %w", err)
	}
	return limit, plugins, f.etcd.check()
}

func (f *reencryptFlags) options() (reencrypt.Options, error) {
	limit, plugins, err := f.check()
	if err != nil {
		return reencrypt.Options{}, usageError{err}
	}
	config, err := apiserver.ReadKubeconfig(f.kubeconfig)
	if err != nil {
		return reencrypt.Options{}, fmt.Errorf("reading --kubeconfig %s: %w", f.kubeconfig, err)
	}
	var resources []string
	for _, r := range f.resources {
		if !slices.Contains(resources, r) {
			resources = append(resources, r)
		}
	}
	options := reencrypt.Options{
		Config: config, APIServers: f.apiServers, Plugins: plugins, Resources: resources,
		Rate: limit, Concurrency: f.concurrency, State: f.state, Wait: f.wait,
	}
	if f.etcd.given() {
		options.Stale = f.stale
	}
	return options, nil
}
