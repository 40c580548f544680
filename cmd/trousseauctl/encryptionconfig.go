// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/trousseau-io/trousseau/internal/ctl/encryptionconfig"
	"github.com/trousseau-io/trousseau/internal/ctl/text"
)

func newEncryptionConfig() *cobra.Command {
	options := encryptionconfig.Options{}
	var phase string
	var inPlace bool
	out := output("yaml")
	cmd := &cobra.Command{
		Use:   "encryption-config [FILE]",
		Short: "Write or edit kube-apiserver's EncryptionConfiguration",
		Long: `Writes an EncryptionConfiguration with the plugin in it, or adds the plugin to
that in FILE, which is the one that --encryption-provider-config names. What is
in FILE stays as it is, with its order and its comments. FILE may be - for
stdin. The outcome goes to stdout, and what it means, and what to do next, to
stderr. Nothing is asked over a network.

The first provider of a list writes, and all of them read. With several API
servers, each has to be able to read what the first one writes before it does:

  --phase read   puts the plugin second, behind what writes now; do this on all
  --phase write  puts it first; a single API server needs only this

It refuses what kube-apiserver would not load, and what would lock data out: a
second name for the same plugin, a name that is taken, a resource of its own
beside a wildcard that encrypts it so far, and to write while identity is first
because encryption is being given up. It removes nothing, ever.`,
		Example: `  trousseauctl encryption-config > new.yaml
  trousseauctl encryption-config encryption-config.yaml --phase read | diff encryption-config.yaml -
  trousseauctl encryption-config encryption-config.yaml --phase read --in-place
  trousseauctl encryption-config encryption-config.yaml --in-place`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usageError{fmt.Errorf("unexpected argument %q: one FILE at a time", args[1])}
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
	flags.StringSliceVar(&options.Resources, "resources", []string{"secrets"}, "what to encrypt: resources, or resource.group; *. for the core group, *.* for everything")
	flags.StringVar(&options.Endpoint, "endpoint", "unix:///run/trousseau/kms.sock", "where the plugin listens")
	flags.StringVar(&options.Name, "name", "trousseau", "name of the provider; it becomes part of every value in etcd and can never change")
	flags.DurationVar(&options.Timeout, "timeout", 0, "how long one call may take, longer than the plugin's --request-timeout (default 3s, or what FILE has)")
	flags.StringVar(&phase, "phase", "write", "read puts the plugin second, write first")
	flags.BoolVar(&inPlace, "in-place", false, "write FILE instead of stdout, in one step")
	flags.VarP(&out, "output", "o", "yaml or json")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"yaml", "json"}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("phase", cobra.FixedCompletions([]string{"read", "write"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		options.Phase = encryptionconfig.Phase(phase)
		switch {
		case out == "table":
			return usageError{errors.New("--output: want yaml or json: the outcome is a file")}
		case flags.Changed("timeout") && options.Timeout <= 0:
			return usageError{fmt.Errorf("--timeout: %s is not a positive duration such as 3s", options.Timeout)}
		case inPlace && (len(args) == 0 || args[0] == "-"):
			return usageError{errors.New("--in-place needs a FILE to write")}
		case inPlace && out != "yaml":
			return usageError{errors.New("--in-place leaves FILE in the form that it has: leave --output out")}
		}
		file := ""
		if len(args) == 1 {
			file = args[0]
		}
		return encryptionConfig(cmd, file, options, inPlace, out)
	}
	return cmd
}

func encryptionConfig(cmd *cobra.Command, file string, options encryptionconfig.Options, inPlace bool, out output) error {
	result, before, err := edited(cmd.InOrStdin(), file, options)
	var mistake *encryptionconfig.OptionError
	switch {
	case errors.As(err, &mistake):
		return usageError{fmt.Errorf("--%w", mistake)}
	case err != nil && file != "":
		return fmt.Errorf("%s: %w", file, aligned(err))
	case err != nil:
		return err
	}
	var report strings.Builder
	if inPlace {
		if result.Changed {
			if err := encryptionconfig.Replace(file, before, result.Text); err != nil {
				return err
			}
			fmt.Fprintf(&report, "%s is written.\n", file)
		}
	} else if err := printConfiguration(cmd.OutOrStdout(), result.Text, out); err != nil {
		return err
	}
	if !result.Changed {
		fmt.Fprintf(&report, "%s is as it should be: nothing is changed.\n", file)
	}
	explain(&report, result)
	_, err = io.WriteString(cmd.ErrOrStderr(), report.String())
	return err
}

// edited returns the outcome, and the text of the file that it was made of.
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
		return result, nil, errors.New("there is no such file: for a new configuration leave FILE out, as in trousseauctl encryption-config > encryption-config.yaml")
	case err != nil:
		return result, nil, fmt.Errorf("reading it: %w", errnoOf(err))
	}
	result, err = encryptionconfig.Edit(before, options)
	return result, before, err
}

// aligned puts each of several problems on a line of its own.
func aligned(err error) error {
	var invalid *encryptionconfig.InvalidError
	if !errors.As(err, &invalid) || len(invalid.Problems) == 1 {
		return err
	}
	return fmt.Errorf("kube-apiserver would not load it, for %s\n  %s",
		text.Count(len(invalid.Problems), "reason"), strings.ReplaceAll(invalid.Error(), "\n", "\n  "))
}

func printConfiguration(w io.Writer, text []byte, out output) error {
	if out == "json" {
		compact, err := yaml.YAMLToJSON(text)
		if err != nil {
			return err
		}
		var indented bytes.Buffer
		if err := json.Indent(&indented, compact, "", "  "); err != nil {
			return err
		}
		indented.WriteByte('\n')
		text = indented.Bytes()
	}
	_, err := w.Write(text)
	return err
}

func explain(b *strings.Builder, result encryptionconfig.Result) {
	e := result.Explain()
	fmt.Fprintf(b, "%s\n", e.Resources)
	text.Hanging(b, "  written by ", e.Writes)
	text.Hanging(b, "  read by ", strings.Join(e.Reads, ", "))
	for _, note := range e.Notes {
		text.Hanging(b, "Note: ", note)
	}
	fmt.Fprintln(b, "Next:")
	for i, step := range e.Next {
		text.Hanging(b, fmt.Sprintf("  %d. ", i+1), step.Text)
		if step.Command != "" {
			fmt.Fprintf(b, "       %s\n", step.Command)
		}
	}
}

// errnoOf is the reason alone, where the path has been said.
func errnoOf(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}
