// SPDX-License-Identifier: Apache-2.0

// Command soak runs a trousseau binary through random faults and checks its
// invariants all the time:
//
//	go run ./soak -trousseau ../bin/trousseau -duration 10m -seed 0
//
// Vault is the fake of package vaulttest, over HTTPS and a TCP proxy in this process,
// so that faults can be injected. trousseau is a separate process, and a part of this
// process writes config.yaml as Vault Agent does. Storms of overlapping faults
// alternate with calms, in which everything must recover. The faults are in fault.go,
// the checks in invariants.go. Direct calls to Vault show when Status must be ok: see
// evidence.go.
//
// The exit code is 1 if an invariant was violated. The printed seed reproduces the
// same faults in the same order with the same durations; how the machine's scheduler
// interleaves them with requests is not reproducible.
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

// run returns the exit code: 0 if every invariant held, 1 if not, 2 for a mistake on
// the command line.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("soak", flag.ContinueOnError)
	flags.SetOutput(stderr)
	binary := flags.String("trousseau", "bin/trousseau", "the trousseau `binary`")
	duration := flags.Duration("duration", 10*time.Minute, "how long to run; the last round is completed")
	seed := flags.Uint64("seed", 0, "seed of the faults; 0 chooses one at random")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if flags.NArg() > 0 || *duration <= 0 {
		fmt.Fprintln(stderr, "soak: invalid arguments; give -trousseau FILE, a positive -duration and -seed N only")
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
		fmt.Fprintf(stderr, "soak: cleaning up: %v\n", err)
		return 1
	}
	if err != nil {
		return 1
	}
	fmt.Fprintf(stdout, "soak: seed %d: ok\n", *seed)
	return 0
}

// errInterrupted is the cause when a signal ends the soak.
var errInterrupted = errors.New("interrupted; everything was cleaned up")
