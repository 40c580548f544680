// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/trousseau-io/trousseau/internal/ctl/conformance"
	"github.com/trousseau-io/trousseau/internal/ctl/text"
	"github.com/trousseau-io/trousseau/internal/endpoint"
)

func newConformance() *cobra.Command {
	var socket, run, skip string
	var list bool
	options := conformance.Options{}
	cmd := &cobra.Command{
		Use:   "conformance --endpoint unix:///path",
		Short: "Check that any KMS v2 plugin does what kube-apiserver relies on",
		Long: `Calls a KMS v2 plugin as kube-apiserver does, and checks its answers. It works for
any KMS v2 plugin. Run it on the host of kube-apiserver, as a user who may connect
to the socket.

It makes several hundred Encrypt and Decrypt calls with generated plaintexts, and
changes nothing.

Each check has a level. kube-apiserver or the data depends on a "must". A "should"
makes a plugin safer or easier to operate. --list and each failure name the source
of the rule: a symbol in Kubernetes' source, or a section of KEP-3299.

Exit code 3 if a "must" fails or is skipped. A failed "should" is only a warning.`,
		Example: `  trousseauctl conformance --endpoint unix:///run/trousseau/kms.sock
  trousseauctl conformance --endpoint unix:///run/trousseau/kms.sock --run '^status-' -o json
  trousseauctl conformance --list`,
		Args: noArguments,
	}
	cmd.Flags().StringVar(&socket, "endpoint", "", "`endpoint` of the plugin, as in EncryptionConfiguration")
	cmd.Flags().DurationVar(&options.Timeout, "timeout", 3*time.Second, "time limit for one call, as in EncryptionConfiguration")
	cmd.Flags().StringVar(&run, "run", "", "`regexp` for the names of the checks to run (default all)")
	cmd.Flags().StringVar(&skip, "skip", "", "`regexp` for the names of the checks to skip")
	cmd.Flags().BoolVar(&list, "list", false, "list of the checks with their sources, without calling a plugin")
	names := make([]cobra.Completion, 0, len(conformance.Checks()))
	for _, c := range conformance.Checks() {
		names = append(names, cobra.CompletionWithDesc(c.Name, c.Rule))
	}
	for _, flag := range []string{"run", "skip"} {
		_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(names, cobra.ShellCompDirectiveNoFileComp))
	}
	out := outputFlag(cmd, "Conformance", "junit")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := selection(&options, run, skip); err != nil {
			return err
		}
		if list {
			var report conformance.Report
			for _, c := range selected(options) {
				report.Checks = append(report.Checks, conformance.Checked{Check: c})
			}
			return out.write(cmd, result{Report: report, Cases: conformanceCases(report)}, func(w io.Writer, _ painter) error { return printChecks(w, report.Checks) })
		}
		if socket == "" {
			return usageError{errors.New("--endpoint is missing: give the endpoint in EncryptionConfiguration, such as unix:///run/trousseau/kms.sock")}
		}
		if options.Timeout <= 0 {
			return usageError{fmt.Errorf("--timeout: %s is not a positive duration such as 3s", options.Timeout)}
		}
		var err error
		if options.Endpoint, err = endpoint.Parse(socket); err != nil {
			return usageError{fmt.Errorf("--endpoint: %w", err)}
		}
		report, err := conformance.Run(cmd.Context(), options)
		if err != nil && report.Checks == nil {
			return err
		}
		return out.write(cmd, result{Report: report, Findings: report.Findings, Err: err, Cases: conformanceCases(report)}, func(w io.Writer, paint painter) error {
			return printReport(w, report, paint)
		})
	}
	return cmd
}

// selection puts --run and --skip into options. It is a mistake if no check is left.
func selection(options *conformance.Options, run, skip string) error {
	for _, f := range []struct {
		name, text string
		pattern    **regexp.Regexp
	}{{"--run", run, &options.Run}, {"--skip", skip, &options.Skip}} {
		if f.text == "" {
			continue
		}
		pattern, err := regexp.Compile(f.text)
		if err != nil {
			return usageError{fmt.Errorf("%s: %w", f.name, err)}
		}
		*f.pattern = pattern
	}
	if len(selected(*options)) == 0 {
		return usageError{errors.New("--run and --skip select no check: see the names with trousseauctl conformance --list")}
	}
	return nil
}

func selected(options conformance.Options) []conformance.Check {
	var checks []conformance.Check
	for _, c := range conformance.Checks() {
		if options.Selects(c.Name) {
			checks = append(checks, c)
		}
	}
	return checks
}

func printChecks(w io.Writer, checks []conformance.Checked) error {
	var b strings.Builder
	group := ""
	for _, c := range checks {
		if c.Group != group {
			group = c.Group
			fmt.Fprintf(&b, "%s\n", group)
		}
		fmt.Fprintf(&b, "  %-27s\t%s\n", c.Name, c.Level)
		text.Paragraph(&b, "      ", c.Rule)
		text.Paragraph(&b, "      ", "From: "+c.Source)
	}
	fmt.Fprintf(&b, "\n%s\n", text.Count(len(checks), "check"))
	_, err := io.WriteString(w, b.String())
	return err
}

func conformanceCases(r conformance.Report) (cases []testCase) {
	results := map[conformance.Result]caseResult{conformance.Fail: caseFailed, conformance.Warn: caseWarned, conformance.Skip: caseSkipped, "": caseSkipped}
	for _, c := range r.Checks {
		cases = append(cases, testCase{c.Name, c.Group, c.Seconds, results[c.Result], strings.TrimSpace(c.Rule + " " + c.Detail + " " + c.Advice)})
	}
	return cases
}

var conformanceMoods = map[conformance.Result]mood{conformance.Fail: bad, conformance.Warn: doubtful}

func printReport(w io.Writer, r conformance.Report, paint painter) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, time limit for a call %s\n", r.Endpoint, r.Timeout)
	group := ""
	for _, f := range r.Checks {
		if f.Group != group {
			group = f.Group
			fmt.Fprintf(&b, "\n%s\n", group)
		}
		if f.Result == conformance.Pass {
			fmt.Fprintf(&b, "  %s\t%-27s\t%s\n", paint(good, "pass"), f.Name, f.Detail)
			continue
		}
		fmt.Fprintf(&b, "  %s  %s\n", paint(conformanceMoods[f.Result], strings.ToUpper(string(f.Result))), f.Name)
		text.Paragraph(&b, "        ", text.Capital(string(f.Level))+": "+f.Rule)
		text.Paragraph(&b, "        ", "Seen: "+f.Detail)
		if f.Advice != "" {
			text.Paragraph(&b, "        ", "Do: "+f.Advice)
		}
		text.Paragraph(&b, "        ", "From: "+f.Source)
	}
	text.Paragraph(&b, "\n", fmt.Sprintf("%s: %d passed, %d failed, %s, %d skipped",
		text.Count(len(r.Checks), "check"), r.Passed, r.Failed, text.Count(r.Warned, "warning"), r.Skipped))
	_, err := io.WriteString(w, b.String())
	return err
}
