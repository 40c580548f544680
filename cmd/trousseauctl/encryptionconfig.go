// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/trousseau-io/trousseau/internal/ctl/encryptionconfig"
	"github.com/trousseau-io/trousseau/internal/ctl/finding"
	"github.com/trousseau-io/trousseau/internal/ctl/text"
	"github.com/trousseau-io/trousseau/internal/endpoint"
)

func newEncryptionConfig() *cobra.Command {
	options := encryptionconfig.Options{}
	var phase, socket string
	var inPlace bool
	cmd := &cobra.Command{
		Use:   "encryption-config [FILE]",
		Short: "Write or edit kube-apiserver's EncryptionConfiguration",
		Long: `Writes a new EncryptionConfiguration with the plugin, or adds the plugin to FILE,
which is the file of --encryption-provider-config, or - for stdin. Everything else
in FILE stays unchanged, comments included. The result goes to stdout, and an
explanation with the next steps to stderr; --output json or yaml prints both in one
document. The command makes no network calls.

The first provider of a list writes, and all of them read. With several API
servers, each must be able to read what the plugin encrypts before the first one
writes with it:

  --phase read   puts the plugin second, which is always safe; run this first, and
                 load the file in all API servers
  --phase write  puts it first; a single API server needs only this

It refuses files that kube-apiserver would not load, and edits that would make
data unreadable: a second name for the same plugin, a name that is in use, a
separate item for a resource that a wildcard covers, and --phase write while
encryption is being disabled (identity first). It never removes a provider.`,
		Example: `  trousseauctl encryption-config > new.yaml
  trousseauctl encryption-config encryption-config.yaml | diff encryption-config.yaml -
  trousseauctl encryption-config encryption-config.yaml --in-place
  trousseauctl encryption-config encryption-config.yaml --phase write --in-place`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usageError{fmt.Errorf("unexpected argument %q: give one FILE", args[1])}
			}
			return nil
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveDefault
		},
	}
	flags := cmd.Flags()
	flags.StringSliceVar(&options.Resources, "resources", []string{"secrets"}, "resources to encrypt, as resource or resource.group; *. for the core group, *.* for everything")
	flags.StringVar(&socket, "endpoint", "unix:///run/trousseau/kms.sock", "`endpoint` of the plugin")
	flags.StringVar(&options.Name, "name", "trousseau", "`name` of the provider; it becomes part of every value in etcd and can never change")
	flags.DurationVar(&options.Timeout, "timeout", 0, "time limit for one call, longer than trousseau's --request-timeout (default 3s, or that in FILE)")
	flags.StringVar(&phase, "phase", "read", "place of the plugin among the providers: read puts it second, write first")
	flags.BoolVar(&inPlace, "in-place", false, "replace FILE atomically instead of writing to stdout")
	_ = cmd.RegisterFlagCompletionFunc("phase", cobra.FixedCompletions([]string{"read", "write"}, cobra.ShellCompDirectiveNoFileComp))
	out := outputFlag(cmd, "EncryptionConfig")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		options.Phase = encryptionconfig.Phase(phase)
		var err error
		if options.Endpoint, err = endpoint.Parse(socket); err != nil {
			return usageError{fmt.Errorf("--endpoint: %w", err)}
		}
		switch {
		case flags.Changed("timeout") && options.Timeout <= 0:
			return usageError{fmt.Errorf("--timeout: %s is not a positive duration such as 3s", options.Timeout)}
		case inPlace && (len(args) == 0 || args[0] == "-"):
			return usageError{errors.New("--in-place needs a FILE")}
		}
		file := ""
		if len(args) == 1 {
			file = args[0]
		}
		return encryptionConfig(cmd, file, options, inPlace, out)
	}
	return cmd
}

func encryptionConfig(cmd *cobra.Command, file string, options encryptionconfig.Options, inPlace bool, out *output) error {
	edit, before, err := edited(cmd.InOrStdin(), file, options)
	var mistake *encryptionconfig.OptionError
	switch {
	case errors.As(err, &mistake):
		return usageError{fmt.Errorf("--%w", mistake)}
	case err != nil && file != "":
		return out.write(cmd, result{Findings: problems(err), Err: fmt.Errorf("%s: %w", file, aligned(err))}, nothing)
	case err != nil:
		return err
	}
	if inPlace && edit.Changed {
		if err := encryptionconfig.Replace(file, before, edit.Text); err != nil {
			return err
		}
	}
	report := encryptionConfigReport{Explanation: edit.Explain()}
	if !inPlace {
		report.Configuration = string(edit.Text)
	}
	return out.write(cmd, result{Report: report, Findings: edit.Findings}, func(w io.Writer, _ painter) error {
		if _, err := io.WriteString(w, report.Configuration); err != nil {
			return err
		}
		return explain(cmd.ErrOrStderr(), file, inPlace, report, edit.Findings)
	})
}

// encryptionConfigReport is the report in the command's document.
type encryptionConfigReport struct {
	encryptionconfig.Explanation
	// Configuration is the file. With --in-place it is only on the disk.
	Configuration string `json:"configuration,omitempty"`
}

// nothing is the table of a failure, of which people read the error.
func nothing(io.Writer, painter) error { return nil }

// problems are the findings in err.
func problems(err error) (all []finding.Finding) {
	var invalid *encryptionconfig.InvalidError
	var refused *encryptionconfig.RefusedError
	switch {
	case errors.As(err, &invalid):
		for _, p := range invalid.Problems {
			all = append(all, finding.Finding{ID: "invalid", Severity: finding.Error, Subject: p.Field, Text: p.String()})
		}
	case errors.As(err, &refused):
		all = append(all, finding.Finding{ID: refused.ID, Severity: finding.Error, Text: refused.Reason})
	}
	return all
}

// edited returns the result, and the original text of the file.
func edited(stdin io.Reader, file string, options encryptionconfig.Options) (result encryptionconfig.Result, before []byte, err error) {
	switch file {
	case "":
		result, err = encryptionconfig.New(options)
		return result, nil, err
	case "-":
		before, err = io.ReadAll(stdin)
	default:
		before, err = os.ReadFile(file)
	}
	switch {
	case errors.Is(err, os.ErrNotExist):
		return result, nil, errors.New("no such file: for a new configuration omit FILE, as in trousseauctl encryption-config > encryption-config.yaml")
	case err != nil:
		return result, nil, fmt.Errorf("reading the file: %w", text.Errno(err))
	}
	result, err = encryptionconfig.Edit(before, options)
	return result, before, err
}

// aligned puts each of several problems on its own line.
func aligned(err error) error {
	var invalid *encryptionconfig.InvalidError
	if !errors.As(err, &invalid) || len(invalid.Problems) == 1 {
		return err
	}
	return fmt.Errorf("kube-apiserver would not load this file, for %s:\n  %s",
		text.Count(len(invalid.Problems), "reason"), strings.ReplaceAll(invalid.Error(), "\n", "\n  "))
}

func explain(w io.Writer, file string, inPlace bool, r encryptionConfigReport, findings []finding.Finding) error {
	var b strings.Builder
	switch {
	case !r.Changed:
		fmt.Fprintf(&b, "%s needs no change.\n", file)
	case inPlace:
		fmt.Fprintf(&b, "%s was changed.\n", file)
	}
	fmt.Fprintf(&b, "%s\n", r.Resources)
	text.Hanging(&b, "  written by ", r.Writes)
	text.Hanging(&b, "  read by ", strings.Join(r.Reads, ", "))
	for _, f := range findings {
		text.Hanging(&b, "Warning: ", strings.TrimSuffix(f.Text+" "+f.Do, " "))
	}
	fmt.Fprintln(&b, "Next:")
	for i, step := range r.Next {
		text.Hanging(&b, fmt.Sprintf("  %d. ", i+1), step.Text)
		if step.Command != "" {
			fmt.Fprintf(&b, "       %s\n", step.Command)
		}
	}
	_, err := io.WriteString(w, text.Fit(b.String(), columns(w)))
	return err
}
