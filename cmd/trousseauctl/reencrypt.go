// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
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
		Short: "Have kube-apiserver rewrite what is not under the current key_id",
		Long: `Sends each object an empty patch. kube-apiserver writes an object for it that is
stored under another key_id than the current one, in the clear, or by another
provider than the first in EncryptionConfiguration, and no other. An update that
somebody makes meanwhile is never lost. Only metadata is read: no value of a
Secret comes here.

It refuses to start unless all plugins (--ops) are healthy with one key_id, and
every API server has it, by its metrics: an API server that does not would leave
objects as they are, without a word. API servers are found by the Service
kubernetes, or given as --api-server. All this is looked at again on the way.

With --state it goes on where it was ended, be it by a kill, some ten seconds
before that. Without, it begins anew. What is done already is in neither case
written again. Delete the file after you have restored etcd.

With --endpoints it reads in etcd what is to be rewritten, instead of sending a
patch for every object, and ends by auditing it, as trousseauctl audit does.

It needs the verbs list and patch on the resources, get on namespaces for
--state, and get on the pages /metrics and /readyz/*. Objects that an admission
webhook refuses are listed, and stay as they are.

Exit code 3 if objects could not be rewritten, or the audit finds some that are
not under the current key_id, or anything else that it finds.`,
		Example: `  trousseauctl reencrypt --kubeconfig /etc/kubernetes/admin.conf
  trousseauctl reencrypt --kubeconfig admin.conf --resources secrets,configmaps \
    --ops 10.0.0.1,10.0.0.2,10.0.0.3 --rate 100/s --state reencrypt.json
  trousseauctl reencrypt --kubeconfig admin.conf \
    --api-server https://10.0.0.1:6443,https://10.0.0.2:6443 --ops 10.0.0.1,10.0.0.2 \
    --endpoints https://10.0.0.1:2379 --cacert ca.crt --cert client.crt --key client.key`,
		Args: noArguments,
	}
	f.register(cmd)
	out := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		options, err := f.options()
		if err != nil {
			return err
		}
		progress := newProgress(cmd.ErrOrStderr())
		options.Progress = func(resource string, done, total int64) { progress.tell("rewriting "+resource, done, total) }
		options.Waiting = func(reason string) {
			progress.end()
			fmt.Fprintln(cmd.ErrOrStderr(), "waiting: "+reason)
		}
		result, err := f.run(cmd.Context(), options, progress)
		progress.end()
		if err != nil {
			return err
		}
		if err := out.print(cmd.OutOrStdout(), result, func(w io.Writer) error { return printReencrypted(w, result, painterFor(w)) }); err != nil {
			return err
		}
		if !result.OK {
			return errFinding
		}
		return nil
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
	flags.StringVar(&f.kubeconfig, "kubeconfig", "", "reach the API server by the current context of this `file`")
	flags.StringSliceVar(&f.resources, "resources", []string{"secrets"}, "what to rewrite, named as in EncryptionConfiguration")
	flags.StringVar(&f.rate, "rate", "50/s", "at most so many patches in a second, minute or hour")
	flags.IntVar(&f.concurrency, "concurrency", 8, "at most so many at once")
	flags.StringVar(&f.state, "state", "", "a `file` that remembers how far the work is; it is removed at the end")
	flags.StringSliceVar(&f.apiServers, "api-server", nil, "the `URL` of every API server, no load balancer's")
	flags.StringSliceVar(&f.ops, "ops", []string{fleet.DefaultAddr}, "the operator's pages of every plugin, each an `ADDR` as in status")
	flags.DurationVar(&f.wait, "wait", 0, "how long the API servers may still take to learn of the key_id")
	f.etcd.register(cmd, "find in etcd at these `URLs` what is to be rewritten, and audit it at the end")
}

// check reports a mistake on the command line.
func (f *reencryptFlags) check() (limit rate.Limit, plugins []fleet.Node, err error) {
	switch {
	case f.kubeconfig == "":
		return 0, nil, errors.New("say how to reach the API server: --kubeconfig and a file, such as /etc/kubernetes/admin.conf")
	case f.concurrency < 1:
		return 0, nil, fmt.Errorf("--concurrency: %d is less than 1", f.concurrency)
	case f.wait < 0:
		return 0, nil, fmt.Errorf("--wait: %s is no duration such as 2m", f.wait)
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
		if !strings.HasPrefix(u, "https://") && !strings.HasPrefix(u, "http://") {
			return 0, nil, fmt.Errorf("--api-server: %q is no URL such as https://10.0.0.1:6443", u)
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
