// SPDX-License-Identifier: Apache-2.0

// Command status requests the Status of a KMS v2 plugin, as kube-apiserver does, until the answer matches a
// pattern:
//
//	status -want '^ok ' unix:///run/trousseau/kms.sock
//
// It prints the matching answer and, with -since, when the first answer came. The exit code is 1 if no answer
// matches in time.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	kmsapi "k8s.io/kms/apis/v2"
)

// pause is the time between two requests.
const pause = 20 * time.Millisecond

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintf(os.Stderr, "status: %v\n", err)
		os.Exit(1)
	}
}

func run(args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("status", flag.ContinueOnError)
	flags.SetOutput(stderr)
	want := flags.String("want", "", "`pattern` to match: health and key_id, or code and text of the error")
	since := flags.Int64("since", 0, "`time` to measure from, in nanoseconds since 1970")
	within := flags.Duration("within", 10*time.Second, "how long to wait for a match")
	if err := flags.Parse(args); err != nil {
		return err
	}
	pattern, err := regexp.Compile(*want)
	if err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return errors.New("name one socket, such as unix:///run/trousseau/kms.sock")
	}
	ctx, cancel := context.WithTimeout(context.Background(), *within)
	defer cancel()
	return ask(ctx, flags.Arg(0), pattern, *since, stdout)
}

func ask(ctx context.Context, socket string, want *regexp.Regexp, since int64, stdout io.Writer) error {
	// Connect as soon as the socket exists, so that no retry pause is measured. A connection may wait in a socket of
	// systemd's until the service has started. Without MinConnectTimeout, each attempt would end after a millisecond.
	conn, err := grpc.NewClient(socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)),
		grpc.WithConnectParams(grpc.ConnectParams{
			MinConnectTimeout: time.Minute,
			Backoff:           backoff.Config{BaseDelay: time.Millisecond, Multiplier: 1, MaxDelay: time.Millisecond},
		}))
	if err != nil {
		return err
	}
	defer conn.Close()
	client := kmsapi.NewKeyManagementServiceClient(conn)
	for first := true; ; first = false {
		answer := describe(client.Status(ctx, &kmsapi.StatusRequest{}))
		if ctx.Err() != nil {
			return fmt.Errorf("no answer matched %q in time; the last one was %q", want, answer)
		}
		if first && since != 0 {
			fmt.Fprintf(stdout, "the first answer came after %d ms\n", time.Since(time.Unix(0, since)).Milliseconds())
		}
		if want.MatchString(answer) {
			fmt.Fprintln(stdout, answer)
			return nil
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

func describe(answer *kmsapi.StatusResponse, err error) string {
	if err != nil {
		return fmt.Sprintf("%s: %s", status.Code(err), status.Convert(err).Message())
	}
	return fmt.Sprintf("%s %s", answer.GetHealthz(), answer.GetKeyId())
}
