// SPDX-License-Identifier: Apache-2.0

// Command bench measures a trousseau binary from outside, as kube-apiserver and
// operators see it: time to start, time to adopt a new configuration, and latency
// and throughput compared with direct calls to the same Vault. The figures are valid
// for this machine and this run.
//
// It uses a real Vault from the directory in TROUSSEAU_E2E, or one built by
// test/tools/build. Otherwise it uses a fake.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
)

func main() {
	// The benchmark starts this program again for its servers.
	if len(os.Args) > 1 && servers[os.Args[1]] != nil {
		exit(servers[os.Args[1]](os.Args[2:]))
	}
	var o options
	flag.StringVar(&o.binary, "trousseau", "bin/trousseau", "the `binary` to measure")
	flag.IntVar(&o.rounds, "rounds", 24, "`number` of rounds of turns for each number of callers")
	flag.StringVar(&o.only, "only", "", "measure one `figure` only: "+names())
	flag.Func("peers", "`list` of other plugins to measure in the same run: NAME=/path/to.sock, or NAME=/path/to/trousseau --flag, separated by commas; \"before\" names an earlier binary that this one must not be slower than", func(text string) (err error) {
		o.peers, err = parsePeers(text)
		return err
	})
	flag.StringVar(&o.svg, "svg", "", "`file` to write with a picture of the throughput")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := measure(ctx, o)
	stop()
	exit(err)
}

// options are the command-line options.
type options struct {
	binary string
	rounds int
	only   string
	peers  []peer
	svg    string
}

func exit(err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// servers maps the first argument to the server that this program then runs.
var servers = map[string]func(args []string) error{
	emptyServer: serveEmpty,
	fakeServer:  serveFake,
}

// figures are the measurements, in order.
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
