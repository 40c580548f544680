// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/trousseau-io/trousseau/internal/ctl/fleet"
)

func newStatus() *cobra.Command {
	options := fleet.Options{}
	var nodesFrom, socket string
	var watch time.Duration
	cmd := &cobra.Command{
		Use:   "status [ADDR...]",
		Short: "Show how one node is, or many, and whether they agree",
		Long: `Asks the operator's pages of each node, /readyz and /metrics on its --ops-addr,
and shows whether it is healthy and why not; the key_id's hash as in
kube-apiserver's metrics, the key's version and its age; the generation; how long
ago the configuration was adopted, and whether the one that is there now is in
use; when the Vault token dies, and whether trousseau keeps it alive; and how
long ago the key was last proven.

Without ADDR it asks ` + fleet.DefaultAddr + `. An ADDR is host, host:port or a URL; port
` + fleet.DefaultPort + ` unless given. With --socket the plugin on that socket is asked for its
Status too, for the whole key_id.

Exit code 3 if a node is not healthy, not reached, or has another key_id than
the others, or if the plugin on the socket is none of the nodes. A configuration
that is not in use, and a token that dies, are shown and do no harm yet. --watch
ends with 0, by SIGINT or SIGTERM.`,
		Example: `  trousseauctl status
  trousseauctl status 10.0.0.1 10.0.0.2 10.0.0.3 --watch
  trousseauctl status --nodes-from nodes.txt -o json
  trousseauctl status --socket unix:///run/trousseau/kms.sock`,
	}
	flags := cmd.Flags()
	flags.StringVar(&nodesFrom, "nodes-from", "", "`file` with an ADDR on each line, instead of arguments; - is stdin")
	flags.StringVar(&socket, "socket", "", "also ask the plugin at this `endpoint` of this host, such as unix:///run/trousseau/kms.sock")
	flags.DurationVar(&options.Timeout, "timeout", 5*time.Second, "how long one node may take")
	flags.DurationVar(&watch, "watch", 0, "ask again at this interval until stopped: draws anew on a terminal, prints a line for each change elsewhere")
	flags.Lookup("watch").NoOptDefVal = "2s"
	out := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case options.Timeout <= 0:
			return usageError{fmt.Errorf("--timeout: %s is not a positive duration such as 5s", options.Timeout)}
		case flags.Changed("watch") && watch <= 0:
			return usageError{fmt.Errorf("--watch: %s is not a positive duration such as 2s", watch)}
		case watch > 0 && *out != "table":
			return usageError{errors.New("--watch prints for people: leave --output out")}
		}
		var err error
		if options.Nodes, err = nodes(cmd.InOrStdin(), args, nodesFrom); err != nil {
			return err
		}
		if socket != "" {
			endpoint, err := fleet.ParseEndpoint(socket)
			if err != nil {
				return usageError{fmt.Errorf("--socket: %w", err)}
			}
			options.Endpoint = &endpoint
		}
		if watch > 0 {
			return watchStatus(cmd.Context(), cmd.OutOrStdout(), options, watch)
		}
		return status(cmd.Context(), cmd.OutOrStdout(), options, out)
	}
	return cmd
}

// nodes are whom the command line names.
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
			return nil, usageError{fmt.Errorf("--nodes-from: %s has no address; write one on each line", file)}
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
		return nil, usageError{errors.New("--nodes-from: stdin has no address; write one on each line")}
	}
	return nodes, nil
}

func status(ctx context.Context, w io.Writer, options fleet.Options, out *output) error {
	r := fleet.Survey(ctx, options)
	if ctx.Err() != nil {
		return errors.New("stopped before all nodes had answered")
	}
	if err := out.print(w, r, func(w io.Writer) error { return printStatus(w, r, painterFor(w)) }); err != nil {
		return err
	}
	if !r.OK {
		return errFinding
	}
	return nil
}

// watchStatus asks until ctx is done.
func watchStatus(ctx context.Context, w io.Writer, options fleet.Options, interval time.Duration) error {
	show := &changes{w: w}
	draw := show.print
	if _, ok := terminal(w); ok {
		paint := painterFor(w)
		draw = func(r fleet.Report) error { return redraw(w, r, paint) }
	}
	again := time.NewTicker(interval)
	defer again.Stop()
	for {
		r := fleet.Survey(ctx, options)
		if ctx.Err() != nil {
			return nil
		}
		if err := draw(r); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-again.C:
		}
	}
}

// redraw writes a report over the one before, without a blank screen between.
func redraw(w io.Writer, r fleet.Report, paint painter) error {
	var text strings.Builder
	if err := printStatus(&text, r, paint); err != nil {
		return err
	}
	const home, eraseLine, eraseBelow = "\x1b[H", "\x1b[K", "\x1b[J"
	_, err := io.WriteString(w, home+strings.ReplaceAll(text.String(), "\n", eraseLine+"\n")+
		r.Time.Format(time.TimeOnly)+" UTC, ends with ctrl-c"+eraseLine+"\n"+eraseBelow)
	return err
}

// changes prints what is another than in the report before.
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
