// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// built is what version prints.
type built struct {
	Version string `json:"version"`
	// Commit is the git commit; "" if Go did not record it.
	Commit    string `json:"commit,omitempty"`
	GoVersion string `json:"goVersion"`
	Platform  string `json:"platform"`
}

func newVersion() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version of trousseauctl",
		Long: `Prints the version of trousseauctl, the commit and the version of Go that it was
built from, and its platform.`,
		Example: `  trousseauctl version
  trousseauctl version -o json`,
		Args: noArguments,
	}
	out := outputFlag(cmd, "Version")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		b := built{Version: version, GoVersion: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
		if info, ok := debug.ReadBuildInfo(); ok {
			for _, s := range info.Settings {
				if s.Key == "vcs.revision" {
					b.Commit = s.Value
				}
			}
		}
		return out.write(cmd, result{Report: b}, func(w io.Writer, _ painter) error {
			_, err := fmt.Fprintf(w, "trousseauctl %s, %s, %s\n", b.Version, b.GoVersion, b.Platform)
			return err
		})
	}
	return cmd
}
