// SPDX-License-Identifier: Apache-2.0

// Command trousseauctl is the operator's tool for Trousseau: it prepares Vault,
// rotates tokens, diagnoses problems and audits etcd.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/agnivade/levenshtein"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// version is set by the linker.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	// A second signal ends the process at once.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// The exit codes. They are documented and must not change.
const (
	exitFailure = 1 // failed; the reason is on stderr
	exitUsage   = 2 // usage error
	exitFinding = 3 // completed, with findings
)

// errFinding ends a command that has completed and has printed findings.
var errFinding = errors.New("completed, with findings")

// usageError is a usage error: run points to --help.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// run is the program without its process. It returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	command, err := execute(ctx, args, stdin, stdout, stderr)
	var usage usageError
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errFinding):
		return exitFinding
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "%s: %v\nRun '%s --help' for usage.\n", command.CommandPath(), err, command.CommandPath())
		return exitUsage
	}
	fmt.Fprintf(stderr, "%s: %v\n", command.CommandPath(), err)
	return exitFailure
}

// execute runs a command line. The caller prints the error.
func execute(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) (*cobra.Command, error) {
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	command, err := root.ExecuteContextC(ctx)
	if err != nil {
		writeFailure(command, err)
	}
	return command, err
}

// newRoot lists the commands.
func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "trousseauctl",
		Short: "The operator's tool for Trousseau, a Kubernetes KMS v2 plugin for Vault",
		Long: `trousseauctl prepares Vault for Trousseau, rotates its token, diagnoses problems,
and audits and re-encrypts what is in etcd.

The exit codes, and the verdict in the document that --output json or yaml prints:

    code  verdict   meaning
    0     ok        completed, without findings; warnings do not count
    1     failed    not completed; the reason is on stderr, and in the document's error
    2     failed    not begun: a mistake on the command line
    3     findings  completed; the findings need action

docs/schema has a JSON Schema for each document.`,
		Version:       version,
		SilenceErrors: true, // run prints them
		SilenceUsage:  true,
		Args:          knownCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usageError{withSuggestion(cmd, err)} })
	for _, cmd := range []*cobra.Command{
		acrossClusters(newAudit(), across{concurrency: 4, summary: auditRow}),
		newConformance(),
		acrossClusters(newDoctor(), across{concurrency: 8, remote: []string{"--socket="}, required: "config", summary: doctorRow}),
		newEncryptionConfig(),
		newKeepStaticPod(),
		newPolicy(),
		newReencrypt(),
		newRotateKey(),
		acrossClusters(newRotateToken(), across{concurrency: 1, administrator: true, summary: rotateTokenRow}),
		newSetup(),
		acrossClusters(newStatus(), across{concurrency: 16, summary: statusRow}),
		newVersion(),
	} {
		complete(cmd)
		root.AddCommand(cmd)
	}
	if filepath.Base(os.Args[0]) == plugin {
		callKubectl(root)
	}
	return root
}

// plugin is the name under which kubectl finds this program, as `kubectl trousseau`.
const plugin = "kubectl-trousseau"

// callKubectl changes the help to what the user of the plugin types.
func callKubectl(root *cobra.Command) {
	const name = "kubectl trousseau"
	root.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: name}
	for _, cmd := range append(root.Commands(), root) {
		for _, text := range []*string{&cmd.Short, &cmd.Long, &cmd.Example} {
			*text = strings.ReplaceAll(*text, root.Use, name)
		}
	}
}

// near is how many letters may be wrong for a suggestion, as in cobra.
const near = 2

// knownCommand rejects the name of a command that does not exist.
func knownCommand(root *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	root.SuggestionsMinimumDistance = near
	err := fmt.Errorf("unknown command %q", args[0])
	if names := root.SuggestionsFor(args[0]); len(names) > 0 {
		err = fmt.Errorf("%w: did you mean %s?", err, strings.Join(names, " or "))
	}
	return usageError{err}
}

// withSuggestion adds the flag that an unknown one may stand for.
func withSuggestion(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return err
	}
	name := unknown.GetSpecifiedName()
	nearest, distance := "", near+1
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if d := levenshtein.ComputeDistance(f.Name, name); d < distance {
			nearest, distance = f.Name, d
		}
	})
	if nearest == "" || len(name) == 1 {
		return err
	}
	return fmt.Errorf("%w: did you mean --%s?", err, nearest)
}

func noArguments(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("unexpected argument %q", args[0])}
	}
	return nil
}

// complete makes a shell complete file names only for flags that take a file, as their
// usage says. By default it would do so everywhere.
func complete(cmd *cobra.Command) {
	if cmd.ValidArgsFunction == nil {
		cmd.ValidArgsFunction = cobra.NoFileCompletions
	}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if value, _ := pflag.UnquoteUsage(f); value != "file" {
			// An error means that the flag already has a completion.
			_ = cmd.RegisterFlagCompletionFunc(f.Name, cobra.NoFileCompletions)
		}
	})
}
