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
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/trousseau-io/trousseau/internal/daemon/sandbox"
)

func main() {
	// net/http logs unsolicited bytes from a server through the standard logger.
	// They may contain a secret.
	log.SetOutput(io.Discard)
	if err := sandbox.DenyDumps(); err != nil {
		fmt.Fprintf(os.Stderr, "trousseau: %v\n", err)
	}
	signaled, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	// The first signal starts the shutdown and restores the default action, so that
	// a second one ends the process at once.
	ctx, end := context.WithCancel(context.Background())
	context.AfterFunc(signaled, func() { stop(); end() })
	os.Exit(exitCode(run(ctx, os.Args[1:], os.Stdout, os.Stderr), os.Stderr))
}

// run runs the program. It returns once ctx is done and everything has shut down,
// or when it cannot continue.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) > 0 {
		switch args[0] {
		case "check-config":
			return checkConfig(args[1:], stdout)
		case "health":
			return health(ctx, args[1:], stdout)
		}
	}
	o, err := parseFlags(args, stdout)
	if err != nil {
		return err
	}
	if o.version {
		_, err := fmt.Fprintf(stdout, "trousseau %s (revision %s, %s %s/%s)\n", version, revision(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
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

// newLogger logs to w. Of a message repeated within a second, it writes the first
// hundred and then every hundredth: in an outage every request fails alike.
func newLogger(o options, w io.Writer) *zap.Logger {
	ec := zap.NewProductionEncoderConfig()
	ec.TimeKey = "time"
	ec.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	ec.EncodeDuration = zapcore.StringDurationEncoder
	encoder := zapcore.NewJSONEncoder(ec)
	if o.logFormat == "console" {
		encoder = zapcore.NewConsoleEncoder(ec)
	}
	core := zapcore.NewCore(encoder, zapcore.Lock(zapcore.AddSync(w)), o.logLevel)
	return zap.New(zapcore.NewSamplerWithOptions(core, time.Second, 100, 100))
}

// version is set at link time: -X main.version=v1.2.3.
var version = "dev"

// revision is the commit of the build, if it was recorded.
func revision() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value
			}
		}
	}
	return "unknown"
}
