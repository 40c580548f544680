// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/trousseau-io/trousseau/internal/config"
)

// checkConfig parses and validates a configuration file as the daemon would,
// without asking Vault.
func checkConfig(args []string, stdout io.Writer) error {
	if len(args) != 1 || strings.HasPrefix(args[0], "-") {
		return usageError{errors.New("check-config takes one argument, the file to check")}
	}
	file := args[0]
	data, err := config.ReadFile(file)
	if err != nil {
		return err
	}
	cfg, err := config.Parse(data, config.ReadFile)
	var mistakes *config.Error
	if errors.As(err, &mistakes) {
		return &checkError{file: file, problems: mistakes.Problems}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	_, err = fmt.Fprintf(stdout, "%s: ok: key %s of %s at %s\n", file, cfg.Vault.KeyNames[0], cfg.Vault.TransitPath, cfg.Vault.Address)
	return err
}

// checkError lists what is wrong with a file, a line for each problem.
type checkError struct {
	file     string
	problems []config.Problem
}

func (e *checkError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s is not usable:", e.file)
	for _, p := range e.problems {
		fmt.Fprintf(&b, "\n  %s", e.file)
		if p.Line > 0 {
			fmt.Fprintf(&b, ":%d", p.Line)
		}
		b.WriteString(": ")
		if p.Field != "" {
			fmt.Fprintf(&b, "%s: ", p.Field)
		}
		b.WriteString(p.Text)
	}
	return b.String()
}
