// SPDX-License-Identifier: Apache-2.0

// Command bench measures a trousseau binary from outside, as kube-apiserver and
// the operator meet it: how soon it serves, how soon a new configuration is in
// use, and how fast it answers, side by side with direct calls of the same
// Vault. The figures are this machine's and this run's.
//
// Vault is a real one if there is one: in the directory that TROUSSEAU_E2E
// names, or where test/tools/build has built it. Otherwise it is a fake.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
)

func main() {
	// The process that measures starts this program as servers of its own.
	if len(os.Args) > 1 && servers[os.Args[1]] != nil {
		exit(servers[os.Args[1]](os.Args[2:]))
	}
	var o options
	flag.StringVar(&o.binary, "trousseau", "bin/trousseau", "the `binary` to measure")
	flag.IntVar(&o.rounds, "rounds", 24, "how `often` direct calls and trousseau take turns at each number of callers")
	flag.StringVar(&o.only, "only", "", "measure one `figure` only: "+names())
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := measure(ctx, o)
	stop()
	exit(err)
}

// options are the command line's.
type options struct {
	binary string
	rounds int
	only   string
}

func exit(err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// servers are what this program is with one of these as its first argument.
var servers = map[string]func(args []string) error{
	emptyServer: serveEmpty,
	fakeServer:  serveFake,
}

// figures are what is measured, in order.
var figures = []struct {
	name    string
	measure func(context.Context, options) error
}{
	{"start", start},
	{"status", status},
	{"reload", reload},
	{"memory", memory},
	{"compare", compare},
}

func names() string {
	text := ""
	for _, f := range figures {
		text += " " + f.name
	}
	return text[1:]
}

func measure(ctx context.Context, o options) error {
	for _, f := range figures {
		if o.only != "" && o.only != f.name {
			continue
		}
		if err := f.measure(ctx, o); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return nil
}

func report(what, format string, args ...any) {
	fmt.Printf("%-62s %s\n", what, fmt.Sprintf(format, args...))
}
