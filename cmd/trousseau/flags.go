// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/trousseau-io/trousseau/internal/endpoint"
)

// options are the daemon's settings that are not about Vault; those are in the
// configuration file, which is reloaded.
type options struct {
	configFile    string
	configPoll    time.Duration
	socket        string // path
	socketMode    fs.FileMode
	socketGroup   string
	takeover      bool
	opsAddr       string
	health        string // path of a socket, or ""
	requestTime   time.Duration
	drainTime     time.Duration
	probeInterval time.Duration
	probeTime     time.Duration
	outageGrace   time.Duration
	vaultRequests int
	requireTLS    bool
	decryptV1     bool
	allowUIDs     []uint32
	sandbox       bool
	logLevel      zapcore.Level
	logFormat     string
	version       bool
}

const usage = `trousseau - a Kubernetes KMS v2 plugin for HashiCorp Vault's transit engine

Usage:
  trousseau [flags]              serve kube-apiserver
  trousseau check-config FILE    check a configuration file, offline
  trousseau health [PAGE]        ask a running process how it is
  trousseau --version

Flags:
`

// parseFlags reads the command line. For --help it prints the usage to stdout
// and returns flag.ErrHelp; every other error is a usageError.
func parseFlags(args []string, stdout io.Writer) (options, error) {
	o := options{socketMode: 0o600, logLevel: zapcore.InfoLevel}
	set := flag.NewFlagSet("trousseau", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	set.StringVar(&o.configFile, "config-file-path", "/etc/trousseau/config.yaml", "configuration `file`; it may appear later, and is reloaded on change")
	set.DurationVar(&o.configPoll, "config-poll-interval", 2*time.Second, "poll interval of the configuration; most changes are noticed at once")
	listen := set.String("listen-addr", "unix:///run/trousseau/kms.sock", "`address` of the socket: the endpoint in EncryptionConfiguration, and the ListenStream= of a socket unit")
	set.Func("socket-mode", "permission `bits` of the socket, in octal; a socket unit sets its own (default 0600)", func(s string) error {
		mode, err := strconv.ParseUint(s, 8, 32)
		if err != nil || mode == 0 || mode > 0o777 {
			return fmt.Errorf("want octal permission bits such as 0660")
		}
		o.socketMode = fs.FileMode(mode)
		return nil
	})
	set.StringVar(&o.socketGroup, "socket-group", "", "`group` of the socket, name or number; empty: the primary group; a socket unit sets its own")
	set.BoolVar(&o.takeover, "takeover", false, "replacement of a live process at the socket, once the key is proven usable; not with a socket unit")
	set.StringVar(&o.opsAddr, "ops-addr", "127.0.0.1:8095", "`address` of the ops endpoints /livez, /startupz, /readyz and /metrics; empty for none")
	health := set.String("health-addr", "", "`address` of a socket with the same endpoints of this process alone, such as unix:///run/trousseau-health/health.sock; empty for none")
	set.DurationVar(&o.requestTime, "request-timeout", 2500*time.Millisecond, "time limit of one request; keep it below EncryptionConfiguration's timeout")
	set.DurationVar(&o.drainTime, "drain-timeout", 5*time.Second, "time limit for running requests at shutdown")
	set.DurationVar(&o.probeInterval, "probe-interval", 30*time.Second, "interval of the key probe, which also finds a new key version")
	set.DurationVar(&o.probeTime, "probe-timeout", 10*time.Second, "time limit of one proof of the key, for which no request waits")
	set.DurationVar(&o.outageGrace, "outage-grace", 5*time.Minute, "time for which Status stays ok while Vault cannot be used; 0 for no grace")
	set.IntVar(&o.vaultRequests, "max-vault-requests", 3, "maximum `number` of concurrent calls to Vault; requests that wait share the next one")
	set.BoolVar(&o.requireTLS, "require-tls", false, "refusal of a configuration that would send the Vault token off this host unencrypted")
	set.BoolVar(&o.decryptV1, "serve-v1-decrypt", false, "decryption for KMS v1 too, for a move from a plugin with the same key; it never encrypts")
	set.Func("socket-allow-uids", "user `ids` that may connect to the socket, separated by commas; empty: every user that the socket's mode admits", func(s string) error {
		for word := range strings.SplitSeq(s, ",") {
			uid, err := strconv.ParseUint(word, 10, 32)
			if err != nil {
				return fmt.Errorf("want numbers such as 0,65532")
			}
			o.allowUIDs = append(o.allowUIDs, uint32(uid))
		}
		return nil
	})
	set.BoolVar(&o.sandbox, "sandbox", true, "Landlock sandbox, in which the process can neither write nor execute files")
	set.TextVar(&o.logLevel, "log-level", zapcore.InfoLevel, "lowest `level` to log: debug, info, warn or error")
	set.StringVar(&o.logFormat, "log-format", "json", "`format` of the log: json or console")
	set.BoolVar(&o.version, "version", false, "print the version and exit")

	err := set.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, usage)
		printFlags(stdout, set)
		return o, err
	case err != nil:
		return o, usageError{err}
	case set.NArg() > 0:
		return o, usageError{fmt.Errorf("unexpected argument %q", set.Arg(0))}
	}
	if o.socket, err = endpoint.ParsePath(*listen); err != nil {
		return o, usageError{fmt.Errorf("--listen-addr: %w", err)}
	}
	if *health != "" {
		if o.health, err = endpoint.ParsePath(*health); err != nil {
			return o, usageError{fmt.Errorf("--health-addr: %w", err)}
		}
	}
	if o.takeover && os.Getenv("LISTEN_PID") == strconv.Itoa(os.Getpid()) {
		return o, usageError{errors.New("--takeover: systemd passed the socket, so there is nothing to take over; remove the flag and restart the service")}
	}
	if o.configFile, err = filepath.Abs(o.configFile); err != nil {
		return o, usageError{fmt.Errorf("--config-file-path: %w", err)}
	}
	for name, d := range map[string]time.Duration{
		"config-poll-interval": o.configPoll, "request-timeout": o.requestTime,
		"drain-timeout": o.drainTime, "probe-interval": o.probeInterval, "probe-timeout": o.probeTime,
	} {
		if d <= 0 {
			return o, usageError{fmt.Errorf("--%s: %s is not a positive duration such as 10s", name, d)}
		}
	}
	switch {
	case o.logFormat != "json" && o.logFormat != "console":
		return o, usageError{fmt.Errorf("--log-format: %q is neither json nor console", o.logFormat)}
	case o.vaultRequests <= 0:
		return o, usageError{fmt.Errorf("--max-vault-requests: %d is not a positive number", o.vaultRequests)}
	case o.outageGrace < 0:
		return o, usageError{fmt.Errorf("--outage-grace: %s is negative; 0 means no grace", o.outageGrace)}
	}
	return o, nil
}

// printFlags lists the flags in the --name form that the documentation uses.
func printFlags(w io.Writer, set *flag.FlagSet) {
	set.VisitAll(func(f *flag.Flag) {
		kind, text := flag.UnquoteUsage(f)
		if f.DefValue != "" && f.DefValue != "false" {
			text += fmt.Sprintf(" (default %s)", f.DefValue)
		}
		fmt.Fprintf(w, "  --%s\n      %s\n", strings.TrimSpace(f.Name+" "+kind), text)
	})
}
