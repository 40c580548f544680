// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/trousseau-io/trousseau/internal/ctl/fleet"
	"github.com/trousseau-io/trousseau/internal/endpoint"
)

func newStatus() *cobra.Command {
	options := fleet.Options{}
	var nodesFrom, socket string
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

The default ADDR is ` + fleet.DefaultAddr + `. An ADDR is a host, host:port or a URL.
The default port is ` + fleet.DefaultPort + `. With --socket it also calls Status of the plugin on
that socket, and shows the whole key_id.

Exit code 3 if a node is unhealthy or unreachable, if the nodes have different
key_ids, or if the plugin on the socket is none of the nodes. A configuration
that is not in use, or a token that expires, is shown but does not change the
exit code. --watch runs until SIGINT or SIGTERM, and then exits with 0.`,
		Example: `  trousseauctl status
  trousseauctl status 10.0.0.1 10.0.0.2 10.0.0.3 --watch
  trousseauctl status --nodes-from nodes.txt -o json
  trousseauctl status --socket unix:///run/trousseau/kms.sock`,
	}
	flags := cmd.Flags()
	flags.StringVar(&nodesFrom, "nodes-from", "", "`file` with one ADDR per line, instead of arguments; - for stdin")
	flags.StringVar(&socket, "socket", "", "`endpoint` of a plugin on this host to check as well, such as unix:///run/trousseau/kms.sock")
	flags.DurationVar(&options.Timeout, "timeout", 5*time.Second, "time limit for one node")
	flags.DurationVar(&watch, "watch", 0, "refresh interval; on a terminal the table is redrawn, elsewhere each change is a line")
	flags.Lookup("watch").NoOptDefVal = "2s"
	out := outputFlag(cmd, "Status")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case options.Timeout <= 0:
			return usageError{fmt.Errorf("--timeout: %s is not a positive duration such as 5s", options.Timeout)}
		case flags.Changed("watch") && watch <= 0:
			return usageError{fmt.Errorf("--watch: %s is not a positive duration such as 2s", watch)}
		case watch > 0 && !out.table():
			return usageError{errors.New("--watch has no other output format: remove --output")}
		}
		var err error
		if options.Nodes, err = nodes(cmd.InOrStdin(), args, nodesFrom); err != nil {
			return err
		}
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

// nodes returns the nodes that the command line names.
func nodes(stdin io.Reader, args []string, file string) (nodes []fleet.Node, err error) {
	switch {
	case file != "" && len(args) > 0:
		return nil, usageError{errors.New("give ADDR or --nodes-from, not both")}
	case file == "-":
		nodes, err = fleet.ReadNodes(stdin)
	case file != "":
		f, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("--nodes-from: %w", err)
		}
		defer f.Close()
		if nodes, err = fleet.ReadNodes(f); err != nil {
			return nil, usageError{fmt.Errorf("--nodes-from: %s: %w", file, err)}
		}
		if len(nodes) == 0 {
			return nil, usageError{fmt.Errorf("--nodes-from: %s has no address; write one per line", file)}
		}
		return nodes, nil
	case len(args) > 0:
		nodes, err = fleet.ParseNodes(args)
	default:
		nodes, err = fleet.ParseNodes([]string{fleet.DefaultAddr})
	}
	switch {
	case err != nil:
		return nil, usageError{err}
	case len(nodes) == 0:
		return nil, usageError{errors.New("--nodes-from: stdin has no address; write one per line")}
	}
	return nodes, nil
}

func status(cmd *cobra.Command, options fleet.Options, out *output) error {
	r := fleet.Survey(cmd.Context(), options)
	if cmd.Context().Err() != nil {
		return errors.New("interrupted before all nodes had answered")
	}
	return out.report(cmd, r, r.OK, func(w io.Writer, paint painter) error { return printStatus(w, r, paint) })
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
		lines = append(lines, r.Problems...)
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
