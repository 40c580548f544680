// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/trousseau-io/trousseau/internal/config"
)

// checkConfig parses and validates a configuration file as the daemon would, without calling Vault. The error has a
// line for each problem.
func checkConfig(args []string, stdout io.Writer) error {
	if len(args) != 1 || strings.HasPrefix(args[0], "-") {
		return usageError{errors.New("check-config takes one argument, the file to check")}
	}
	file := args[0]
	data, err := config.ReadFile(file)
	if err != nil {
		return err
	}
	cfg, err := config.Parse(data, nil)
	if mistakes, ok := errors.AsType[*config.Error](err); ok {
		text := file + " is not usable:"
		for _, p := range mistakes.Problems {
			place := file
			if p.Line > 0 {
				place = fmt.Sprintf("%s:%d", file, p.Line)
			}
			p.Line = 0
			text += fmt.Sprintf("\n  %s: %s", place, p)
		}
		return errors.New(text)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	v := cfg.Vault
	_, err = fmt.Fprintf(stdout, "%s: ok: key %s of %s at %s\n", file, v.KeyNames[0], v.TransitPath, v.Address)
	return err
}
