// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/trousseau-io/trousseau/internal/ctl/finding"
	"github.com/trousseau-io/trousseau/internal/ctl/fleet"
	"github.com/trousseau-io/trousseau/internal/endpoint"
)

func newStatus() *cobra.Command {
	var nodes nodeFlags
	var timeout time.Duration
	var socket string
	var watch time.Duration
	cmd := &cobra.Command{
		Use:   "status [ADDR...]",
		Short: "Show node status and check that nodes agree",
		Long: `Reads the ops endpoints /readyz and /metrics of each node, and shows:

- whether the node is healthy, and if not, why,
- the hash of the key_id, as in kube-apiserver's metrics,
- the key version and its age,
- the generation of the configuration, and the age and result of the last reload,
- when the Vault token expires, and whether trousseau renews it,
- when the key was last proven to work.

With --kubeconfig, --context or KUBECONFIG it finds the nodes: those of the pods
that the chart or your manifests have created, static pods included. It reaches
each as kubectl port-forward does, so --ops-addr can stay 127.0.0.1. It needs the
verbs list on pods, get and create on pods/portforward, list on endpointslices in
the namespace default, and get on nodes.

Otherwise, name the nodes. An ADDR is a host, host:port or a URL; the default
port is ` + fleet.DefaultPort + `. Without any, it asks ` + fleet.DefaultAddr + `.

With --socket it also calls Status of the plugin on that socket, and shows the
whole key_id.

Exit code 3 if a node is unhealthy or unreachable, if the nodes have different
key_ids, if an API server of the cluster has no pod of trousseau on its node, or
if the plugin on the socket is none of the nodes. A configuration
that is not in use, or a token that expires, is shown but does not change the
exit code. --watch runs until SIGINT or SIGTERM, and then exits with 0.`,
		Example: `  trousseauctl status
  trousseauctl status --kubeconfig admin.conf
  trousseauctl status --inventory clusters.yaml
  trousseauctl status 10.0.0.1 10.0.0.2 10.0.0.3 --watch
  trousseauctl status --nodes-from nodes.txt -o json
  trousseauctl status --socket unix:///run/trousseau/kms.sock`,
	}
	flags := cmd.Flags()
	nodes.register(flags)
	flags.StringVar(&socket, "socket", "", "`endpoint` of a plugin on this host to check as well, such as unix:///run/trousseau/kms.sock")
	flags.DurationVar(&timeout, "timeout", 5*time.Second, "time limit for one node")
	flags.DurationVar(&watch, "watch", 0, "refresh interval; on a terminal the table is redrawn, elsewhere each change is a line")
	flags.Lookup("watch").NoOptDefVal = "2s"
	out := outputFlag(cmd, "Status")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case timeout <= 0:
			return usageError{fmt.Errorf("--timeout: %s is not a positive duration such as 5s", timeout)}
		case flags.Changed("watch") && watch <= 0:
			return usageError{fmt.Errorf("--watch: %s is not a positive duration such as 2s", watch)}
		case watch > 0 && !out.table():
			return usageError{errors.New("--watch has no other output format: remove --output")}
		}
		if !nodes.typed(args) && !nodes.cluster.given(flags) && os.Getenv("KUBECONFIG") == "" {
			args = []string{fleet.DefaultAddr}
		}
		options, err := nodes.options(cmd, args)
		if err != nil {
			return err
		}
		options.Timeout = timeout
		if socket != "" {
			endpoint, err := endpoint.Parse(socket)
			if err != nil {
				return usageError{fmt.Errorf("--socket: %w", err)}
			}
			options.Endpoint = &endpoint
		}
		if watch > 0 {
			return watchStatus(cmd.Context(), cmd.OutOrStdout(), options, watch)
		}
		return status(cmd, options, out)
	}
	return cmd
}

func status(cmd *cobra.Command, options fleet.Options, out *output) error {
	r := fleet.Survey(cmd.Context(), options)
	if cmd.Context().Err() != nil {
		return errors.New("interrupted before all nodes had answered")
	}
	if r.Err != nil {
		return r.Err
	}
	return out.write(cmd, result{Report: r, Findings: r.Findings}, func(w io.Writer, paint painter) error { return printStatus(w, r, paint) })
}

// changes prints what differs from the previous report.
type changes struct {
	w    io.Writer
	last *fleet.Report
}

func (c *changes) print(r fleet.Report) error {
	var lines []string
	if c.last == nil {
		for _, a := range r.Nodes {
			line := a.Node + ": " + a.Line()
			if a.State != nil {
				line += ", " + a.State.Key.String()
			}
			lines = append(lines, line)
		}
		for _, f := range r.Findings {
			if f.Severity == finding.Error && !slices.ContainsFunc(r.Nodes, func(a fleet.Answer) bool { return a.Node == f.Subject }) {
				lines = append(lines, advice(f))
			}
		}
	} else {
		lines = r.Since(*c.last)
	}
	c.last = &r
	for _, line := range lines {
		if _, err := fmt.Fprintf(c.w, "%s %s\n", r.Time.Format(time.RFC3339), line); err != nil {
			return err
		}
	}
	return nil
}
