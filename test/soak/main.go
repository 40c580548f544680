// SPDX-License-Identifier: Apache-2.0

// Command soak has a trousseau binary live through faults, drawn at random from
// a seed, and checks all along what must hold whatever happens:
//
//	go run ./soak -trousseau ../bin/trousseau -duration 10m -seed 0
//
// Vault is the fake of package vaulttest, over HTTPS within this process, so
// that it can be faulted; trousseau is a process of its own, and a part of this
// one writes config.yaml as Vault Agent does. Storms of overlapping faults and
// calm take turns. In the calm everything must be well again; see invariants.go
// for what is asked and fault.go for what is done.
//
// The exit code is 1 if an invariant was violated. The seed that is printed
// makes the same faults come again, in the same order and for as long; how the
// machine's scheduler interleaves them with the requests is not repeated.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run returns the exit code: 0 if every invariant held, 1 if not, 2 for a
// mistake on the command line.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("soak", flag.ContinueOnError)
	flags.SetOutput(stderr)
	binary := flags.String("trousseau", "bin/trousseau", "the trousseau `binary`")
	duration := flags.Duration("duration", 10*time.Minute, "how long to go on; the last round is finished")
	seed := flags.Uint64("seed", 0, "of the faults; 0 draws one")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if flags.NArg() > 0 || *duration <= 0 {
		fmt.Fprintln(stderr, "soak: want -trousseau FILE, a positive -duration and -seed N, and nothing else")
		return 2
	}
	for *seed == 0 {
		*seed = uint64(rand.Uint32())
	}

	s, err := newSoak(*binary, *seed, stdout)
	if err != nil {
		fmt.Fprintf(stderr, "soak: %v\n", err)
		return 1
	}
	fmt.Fprintf(stdout, "soak: seed %d, %s, files in %s\n", *seed, *duration, s.stage.dir)
	err = s.walk(ctx, *duration)
	if v := (*violation)(nil); ctx.Err() != nil && !errors.As(err, &v) {
		err = errInterrupted
	}
	s.reportTo(stdout, err)
	if err := s.close(err == nil || errors.Is(err, errInterrupted)); err != nil {
		fmt.Fprintf(stderr, "soak: clearing up: %v\n", err)
		return 1
	}
	if err != nil {
		return 1
	}
	fmt.Fprintf(stdout, "soak: seed %d: ok\n", *seed)
	return 0
}

// errInterrupted is how the walk ends if whoever started it wants it to.
var errInterrupted = errors.New("interrupted; nothing is left behind")
