// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"

	"github.com/trousseau-io/trousseau/internal/ctl/finding"
	"github.com/trousseau-io/trousseau/internal/ctl/inventory"
	"github.com/trousseau-io/trousseau/internal/ctl/text"
)

// across describes how a command runs for each cluster of an inventory.
type across struct {
	// concurrency is how many clusters are asked at the same time by default.
	concurrency int
	// administrator says that it needs Vault's address and a token.
	administrator bool
	// remote are flags for a cluster that is not on this host, unless they are given.
	remote []string
	// required is a flag without which the command would look at this host.
	required string
	// summary is the row of a cluster without findings, from the command's report.
	summary func(report any) string

	file, cluster string
}

// clustersIn is for the help of a command.
const clustersIn = `

With --inventory it runs for each cluster of a file, and prints a row for each;
--cluster shows one of them in full. docs/clusters.md describes the file.`

// acrossClusters lets a command run for each cluster of an inventory. The command itself
// runs once for each, with -o json, and its documents are put together: a failure of one
// is its own.
func acrossClusters(cmd *cobra.Command, a across) *cobra.Command {
	flags := cmd.Flags()
	flags.StringVar(&a.file, "inventory", "", "`file` that lists clusters; the command runs for each")
	named := flags.Lookup("cluster") != nil // rotate-token has its own without an inventory
	if !named {
		flags.StringVar(&a.cluster, "cluster", "", "`name` of the only cluster of --inventory to run for")
	}
	flags.IntVar(&a.concurrency, "concurrency", a.concurrency, "maximum `number` of clusters of --inventory at the same time")
	cmd.Long += clustersIn
	alone := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		a.cluster = flags.Lookup("cluster").Value.String()
		switch {
		case a.file == "" && flags.Changed("concurrency"):
			return usageError{errors.New("--concurrency needs --inventory")}
		case a.file == "" && !named && a.cluster != "":
			return usageError{errors.New("--cluster needs --inventory")}
		case a.file == "":
			return alone(cmd, args)
		case a.concurrency < 1:
			return usageError{fmt.Errorf("--concurrency: %d is less than 1", a.concurrency)}
		}
		return a.run(cmd, args)
	}
	return cmd
}

func (a across) run(cmd *cobra.Command, args []string) error {
	for _, name := range []string{"kubeconfig", "context", "ops", "nodes-from"} {
		if len(args) > 0 || cmd.Flags().Changed(name) {
			return usageError{errors.New("--inventory says which nodes: remove ADDR, --ops, --nodes-from, --kubeconfig and --context")}
		}
	}
	clusters, err := inventory.Read(a.file, isFileFlag())
	if err != nil {
		return fmt.Errorf("--inventory: %w", err)
	}
	out, _ := cmd.Flags().Lookup("output").Value.(*output)
	if a.cluster != "" {
		i := slices.IndexFunc(clusters, func(c inventory.Cluster) bool { return c.Name == a.cluster })
		if i < 0 {
			return usageError{fmt.Errorf("--cluster: %s has no cluster %q", a.file, a.cluster)}
		}
		clusters = clusters[i : i+1]
	}
	for _, c := range clusters {
		if _, given := c.Command(cmd.Name())[a.required]; a.required != "" && !given && !cmd.Flags().Changed(a.required) {
			return fmt.Errorf("--inventory: %s: cluster %s: %s.%s is missing: give this cluster's", a.file, c.Name, cmd.Name(), a.required)
		}
	}
	if a.cluster != "" {
		out.written = true // by the command that runs now
		return a.one(cmd.Context(), clusters[0], a.arguments(cmd, clusters[0], out.format), cmd.OutOrStdout(), cmd.ErrOrStderr())
	}
	if !slices.Contains([]string{"table", "json", "yaml"}, out.format) {
		return usageError{fmt.Errorf("--output: %s is for one cluster: add --cluster", out.format)}
	}
	for _, name := range []string{"watch", "html", "resume"} {
		if cmd.Flags().Changed(name) {
			return usageError{fmt.Errorf("--%s is for one cluster: add --cluster", name)}
		}
	}
	r := ofClusters{Clusters: a.all(cmd, clusters)}
	out.kind += "OfClusters"
	together := result{Report: r, Findings: r.findings()}
	if slices.ContainsFunc(r.Clusters, func(c ofCluster) bool { return c.Document.Verdict != verdictOK }) {
		together.Err = errFinding
	}
	return out.write(cmd, together, func(w io.Writer, paint painter) error {
		return a.print(w, r, paint)
	})
}

// all runs the command for each cluster, and returns the documents in the same order.
func (a across) all(cmd *cobra.Command, clusters []inventory.Cluster) []ofCluster {
	documents := make([]ofCluster, len(clusters))
	var running errgroup.Group
	running.SetLimit(a.concurrency)
	var writing sync.Mutex
	for i, c := range clusters {
		args := a.arguments(cmd, c, "json") // here, because reading flags sorts them
		running.Go(func() error {
			var stdout bytes.Buffer
			err := a.one(cmd.Context(), c, args, &stdout, &prefixed{to: cmd.ErrOrStderr(), mu: &writing, prefix: c.Name + ": "})
			d := &documents[i]
			d.Name = c.Name
			if json.Unmarshal(stdout.Bytes(), &d.Document) != nil {
				// It ended before it could write its own.
				d.Document = clusterDocument{Verdict: verdictFailed, Error: fmt.Sprint(err), Findings: []finding.Finding{}}
			}
			return nil
		})
	}
	_ = running.Wait()
	return documents
}

// one runs the command for a cluster.
func (a across) one(ctx context.Context, c inventory.Cluster, args []string, stdout, stderr io.Writer) error {
	if err := ctx.Err(); err != nil {
		return errors.New("interrupted before it began")
	}
	if a.administrator {
		variables, err := c.Environment(os.Getenv)
		if err != nil {
			return err
		}
		ctx = withEnvironment(ctx, variables)
	}
	_, err := execute(ctx, args, strings.NewReader(""), stdout, stderr)
	return err
}

// arguments returns the command line for a cluster: what the inventory says, unless
// the operator has given the same flag.
func (a across) arguments(cmd *cobra.Command, c inventory.Cluster, format string) []string {
	args := append([]string{cmd.Name(), "--output=" + format}, a.remote...)
	set := func(name string, values ...string) {
		if f := cmd.Flags().Lookup(name); f == nil || f.Changed {
			return
		}
		for _, v := range values {
			args = append(args, "--"+name+"="+v)
		}
	}
	for name, value := range map[string]string{"kubeconfig": c.Kubeconfig, "context": c.Context, "namespace": c.Namespace, "selector": c.Selector} {
		if value != "" {
			set(name, value)
		}
	}
	set("ops", c.Ops...)
	for name, values := range c.Command(cmd.Name()) {
		set(name, values...)
	}
	cmd.Flags().Visit(func(f *pflag.Flag) {
		switch list, is := f.Value.(pflag.SliceValue); {
		case slices.Contains([]string{"inventory", "cluster", "concurrency", "output"}, f.Name):
		case is:
			for _, v := range list.GetSlice() {
				args = append(args, "--"+f.Name+"="+v)
			}
		default:
			args = append(args, "--"+f.Name+"="+f.Value.String())
		}
	})
	return args
}

// isFileFlag reports whether a flag of a command is the name of a file, as its usage
// says.
func isFileFlag() func(command, flag string) (bool, error) {
	root := newRoot()
	return func(command, flag string) (bool, error) {
		cmd, _, err := root.Find([]string{command})
		if err != nil {
			return false, err
		}
		f := cmd.Flags().Lookup(flag)
		if f == nil || slices.Contains([]string{"inventory", "concurrency", "output"}, flag) {
			return false, fmt.Errorf("trousseauctl %s has no such flag for one cluster", command)
		}
		value, _ := pflag.UnquoteUsage(f)
		return value == "file", nil
	}
}

// ofClusters is the report of a command that ran for an inventory.
type ofClusters struct {
	Clusters []ofCluster `json:"clusters"`
}

// ofCluster is the document that the command prints for one cluster.
type ofCluster struct {
	Name     string          `json:"name"`
	Document clusterDocument `json:"document"`
}

// clusterDocument is a document whose report is only passed on.
type clusterDocument struct {
	APIVersion string            `json:"apiVersion,omitempty"`
	Kind       string            `json:"kind,omitempty"`
	Verdict    string            `json:"verdict"`
	Error      string            `json:"error,omitempty"`
	Findings   []finding.Finding `json:"findings"`
	Report     any               `json:"report,omitempty"`
}

// findings are those of all clusters, with the cluster before the subject, and one for
// each cluster where the command failed.
func (r ofClusters) findings() (all []finding.Finding) {
	for _, c := range r.Clusters {
		if c.Document.Verdict == verdictFailed {
			all = append(all, finding.Finding{ID: "cluster-failed", Severity: finding.Error, Subject: c.Name, Text: c.Document.Error})
		}
		for _, f := range c.Document.Findings {
			f.Subject = strings.TrimSuffix(c.Name+"/"+f.Subject, "/")
			all = append(all, f)
		}
	}
	return all
}

// screen is the width of a row.
const screen = 80

// print writes a row for each cluster, so that forty fit on a screen.
func (a across) print(w io.Writer, r ofClusters, paint painter) error {
	moods := map[string]mood{verdictOK: good, verdictFindings: bad, verdictFailed: bad}
	wide := len("CLUSTER")
	for _, c := range r.Clusters {
		wide = max(wide, min(24, len(c.Name)))
	}
	var b strings.Builder
	b.WriteString("CLUSTER\tVERDICT\tSUMMARY\n")
	count := make(map[string]int)
	for _, c := range r.Clusters {
		verdict := c.Document.Verdict
		count[verdict]++
		fmt.Fprintf(&b, "%s\t%s\t%s\n", text.Cut(c.Name, wide), paint(moods[verdict], verdict), text.Cut(a.row(c.Document), screen-wide-len("  findings  ")))
	}
	fmt.Fprintf(&b, "\n%s: %d ok, %d with findings, %d failed\n", text.Count(len(r.Clusters), "cluster"), count[verdictOK], count[verdictFindings], count[verdictFailed])
	if count[verdictOK] < len(r.Clusters) {
		b.WriteString("Add --cluster NAME for the details of one.\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// row is one cluster on one line: why it failed, or its first problem, or what the
// report says.
func (a across) row(d clusterDocument) string {
	if d.Verdict == verdictFailed {
		return d.Error
	}
	first := slices.IndexFunc(d.Findings, func(f finding.Finding) bool { return f.Severity == finding.Error })
	line := ""
	if first < 0 {
		if line = a.summary(d.Report); len(d.Findings) == 0 {
			return line
		}
		first, line = 0, line+"; warning: "
	}
	if more := len(d.Findings) - 1; more > 0 {
		line += fmt.Sprintf("(1 of %d) ", more+1)
	}
	f := d.Findings[first]
	if f.Subject != "" && !strings.Contains(f.Text, f.Subject) {
		line += f.Subject + ": "
	}
	return line + f.Text
}

// prefixed writes whole lines, each after a prefix.
type prefixed struct {
	to     io.Writer
	mu     *sync.Mutex
	prefix string
	rest   []byte
}

func (p *prefixed) Write(b []byte) (int, error) {
	p.rest = append(p.rest, b...)
	for {
		line, rest, whole := bytes.Cut(p.rest, []byte("\n"))
		if !whole {
			return len(b), nil
		}
		p.rest = rest
		p.mu.Lock()
		_, err := fmt.Fprintf(p.to, "%s%s\n", p.prefix, line)
		p.mu.Unlock()
		if err != nil {
			return 0, err
		}
	}
}

type environmentKey struct{}

// withEnvironment sets the variables of one run of a command; nil leaves them alone.
func withEnvironment(ctx context.Context, variables map[string]string) context.Context {
	if variables == nil {
		return ctx
	}
	return context.WithValue(ctx, environmentKey{}, variables)
}

// getenv reads a variable of the environment, or of the cluster that a command runs for.
func getenv(ctx context.Context) func(string) string {
	if variables, ok := ctx.Value(environmentKey{}).(map[string]string); ok {
		return func(name string) string { return variables[name] }
	}
	return os.Getenv
}
