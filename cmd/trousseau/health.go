// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"github.com/trousseau-io/trousseau/internal/daemon/live"
	"github.com/trousseau-io/trousseau/internal/daemon/ops"
	"github.com/trousseau-io/trousseau/internal/daemon/unixsock"
	"github.com/trousseau-io/trousseau/internal/endpoint"
)

var errNotServing = errors.New("this process does not serve the socket")

// startChecks are those of /startupz. Once they hold, they hold for the life of the
// process: a kubelet that took a pod for unready during an outage of Vault would let
// a rollout end the pods that still serve within the grace.
func startChecks(kek *live.KEK, started *atomic.Bool) []ops.Check {
	return []ops.Check{
		{Name: "kek", Check: func() error {
			if kek.Current() != nil {
				return nil
			}
			return kek.Degraded()
		}},
		{Name: "socket", Check: func() error {
			if !started.Load() {
				return errNotServing
			}
			return nil
		}},
	}
}

// readyChecks are those of /readyz: the key and the socket as they are now.
func readyChecks(kek *live.KEK, serving *atomic.Pointer[unixsock.Listener]) []ops.Check {
	return []ops.Check{
		{Name: "kek", Check: kek.Degraded},
		{Name: "socket", Check: func() error {
			if l := serving.Load(); l != nil {
				return l.Published()
			}
			return errNotServing
		}},
	}
}

// health asks a running process for one of its pages and prints it. The error says
// why it is not healthy, or why it cannot be asked.
func health(ctx context.Context, args []string, stdout io.Writer) error {
	set := flag.NewFlagSet("trousseau health", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	addr := set.String("addr", "127.0.0.1:8095", "`address` of the ops endpoints: the process's --ops-addr or --health-addr")
	err := set.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(stdout, healthUsage)
		printFlags(stdout, set)
		return err
	}
	page := cmp.Or(set.Arg(0), "readyz")
	switch {
	case err != nil:
		return usageError{err}
	case set.NArg() > 1:
		return usageError{fmt.Errorf("unexpected argument %q", set.Arg(1))}
	case page != "livez" && page != "startupz" && page != "readyz":
		return usageError{fmt.Errorf("no page %q; there are livez, startupz and readyz", page)}
	}
	target := *addr
	if strings.HasPrefix(target, "/") || strings.HasPrefix(target, "unix:") {
		if target, err = endpoint.ParsePath(target); err != nil {
			return usageError{fmt.Errorf("--addr: %w", err)}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	text, err := ops.Ask(ctx, target, page)
	if err != nil {
		return err
	}
	_, err = io.WriteString(stdout, text)
	return err
}

const healthUsage = `Asks a running process how it is, and prints the answer.

Usage:
  trousseau health [--addr ADDRESS] [livez|startupz|readyz]

  livez     the process answers
  startupz  it has proven the key and served its socket since it started
  readyz    the key can be used right now, and the socket is in place; the default

Exits with 1 if the answer is no.

Flags:
`
