// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"
)

// output is the format in which a command prints its result.
type output string

var outputs = []string{"table", "json", "yaml"}

// outputFlag adds --output to a command.
func outputFlag(cmd *cobra.Command) *output {
	o := output("table")
	cmd.Flags().VarP(&o, "output", "o", "output `format`: table, json or yaml")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(outputs, cobra.ShellCompDirectiveNoFileComp))
	return &o
}

func (o *output) String() string { return string(*o) }

func (o *output) Type() string { return "format" }

func (o *output) Set(s string) error {
	if !slices.Contains(outputs, s) {
		return fmt.Errorf("want %s", strings.Join(outputs, ", "))
	}
	*o = output(s)
	return nil
}

// print writes v in JSON or YAML, with the names of its json tags, or calls table.
func (o *output) print(w io.Writer, v any, table func(io.Writer) error) error {
	switch *o {
	case "json":
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return encoder.Encode(v)
	case "yaml":
		text, err := yaml.Marshal(v)
		if err != nil {
			return err
		}
		_, err = w.Write(text)
		return err
	}
	return table(w)
}

// report prints v like print, table with colors if w is a terminal, and returns
// errFinding if the result is not ok.
func (o *output) report(w io.Writer, v any, ok bool, table func(io.Writer, painter) error) error {
	if err := o.print(w, v, func(w io.Writer) error { return table(w, painterFor(w)) }); err != nil {
		return err
	}
	if !ok {
		return errFinding
	}
	return nil
}
