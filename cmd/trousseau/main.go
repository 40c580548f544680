// SPDX-License-Identifier: Apache-2.0

// Command trousseau is a Kubernetes KMS v2 plugin: it wraps and unwraps
// kube-apiserver's DEK seeds with a key that never leaves HashiCorp Vault's
// transit engine, and follows every change of its configuration without a
// restart.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"syscall"

	"github.com/trousseau-io/trousseau/internal/daemon/sandbox"
)

func main() {
	// net/http logs what a server sends unasked through the standard logger,
	// and that may be anything.
	log.SetOutput(io.Discard)
	if err := sandbox.DenyDumps(); err != nil {
		fmt.Fprintf(os.Stderr, "trousseau: %v\n", err)
	}
	signaled, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	// The first signal begins the shutdown; before that shows, signals have their
	// default effect again, so that a second one ends the process at once.
	ctx, end := context.WithCancel(context.Background())
	context.AfterFunc(signaled, func() { stop(); end() })
	os.Exit(exitCode(run(ctx, os.Args[1:], os.Stdout, os.Stderr), os.Stderr))
}

// run is the program but for the process around it. It returns when ctx is done
// and everything has been shut down, or when there is nothing to go on with.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) > 0 && args[0] == "check-config" {
		return checkConfig(args[1:], stdout)
	}
	o, err := parseFlags(args, stdout)
	if err != nil {
		return err
	}
	if o.version {
		_, err := fmt.Fprintln(stdout, versionLine())
		return err
	}
	return serve(ctx, o, stderr)
}

// usageError is a mistake on the command line.
type usageError struct{ error }

// exitCode reports err on stderr and returns the process's exit code: 2 for a
// mistake on the command line, 1 for every other failure.
func exitCode(err error, stderr io.Writer) int {
	var usage usageError
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "trousseau: %v\nRun 'trousseau --help' for usage.\n", err)
		return 2
	}
	fmt.Fprintf(stderr, "trousseau: %v\n", err)
	return 1
}
