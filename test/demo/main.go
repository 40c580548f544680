// SPDX-License-Identifier: Apache-2.0

// Command demo shows what Trousseau does, on one machine and in under a minute:
// the real trousseau binary between kube-apiserver's own KMS v2 code and a fake
// Vault inside this program, while tokens are rotated and revoked, config.yaml
// breaks, the transit key is rotated and Vault stops.
//
//	go run ./demo -trousseau ../bin/trousseau
//
// It prints what it saw at each step. The exit code is 1 if a check failed.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// chapter is one step of the story.
type chapter struct {
	title string
	tell  func(*demo, context.Context) error
}

var story = []chapter{
	{"trousseau starts, without config.yaml and without Vault", (*demo).start},
	{"config.yaml arrives, as Vault Agent renders it", (*demo).configure},
	{"kube-apiserver writes a Secret and reads it back", (*demo).writeSecret},
	{"the Vault token is rotated under load; the old one is revoked at once", (*demo).rotateToken},
	{"config.yaml breaks", (*demo).breakConfig},
	{"the transit key is rotated", (*demo).rotateKey},
	{"Vault stops, and starts again", (*demo).stopVault},
	{"another kube-apiserver starts, with an empty cache", (*demo).startAnother},
	{"trousseau is stopped", (*demo).stop},
}

// longest bounds the whole story, which takes about half a minute: a failure
// must not keep the reader waiting.
const longest = 2 * time.Minute

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run returns the exit code: 0 if every check passed, 1 if not, 2 for a mistake
// on the command line.
func run(ctx context.Context, args []string, stdout *os.File, stderr io.Writer) int {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.SetOutput(stderr)
	binary := flags.String("trousseau", "", "the trousseau `binary` to show (required)")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if *binary == "" || flags.NArg() > 0 {
		fmt.Fprintln(stderr, "demo: give the binary and no other argument: go run ./demo -trousseau ../bin/trousseau")
		return 2
	}
	bounded, cancel := context.WithTimeoutCause(ctx, longest, fmt.Errorf("the demo did not finish within %s", longest))
	defer cancel()

	began := time.Now()
	d, err := newDemo(bounded, *binary, newScreen(stdout))
	if err != nil {
		fmt.Fprintf(stderr, "demo: %v\n", err)
		return 1
	}
	for i, c := range story {
		d.chapter(i+1, c.title)
		if err = c.tell(d, bounded); err != nil {
			break
		}
	}
	if ctx.Err() != nil {
		d.close(true)
		d.end(false, "Interrupted. All processes are stopped and all files removed.")
		return 1
	}
	if err != nil {
		d.broken(err)
	}
	d.table(d.findings)
	good := err == nil && allTrue(d.findings)
	d.close(good)
	if !good {
		d.end(false, "Some checks failed. Files and logs are kept in "+d.dir)
		return 1
	}
	d.end(true, fmt.Sprintf("All %d checks passed in %.0f s.", len(d.findings), time.Since(began).Seconds()))
	return 0
}
