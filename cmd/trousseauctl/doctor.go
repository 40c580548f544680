// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/trousseau-io/trousseau/internal/ctl/doctor"
	"github.com/trousseau-io/trousseau/internal/ctl/fleet"
	"github.com/trousseau-io/trousseau/internal/ctl/text"
	"github.com/trousseau-io/trousseau/internal/endpoint"
)

func newDoctor() *cobra.Command {
	options := doctor.Options{}
	var endpoints []string
	var pods clusterFlags
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Find out why Trousseau does not work on this node",
		Long: `Checks everything that Trousseau depends on: the configuration and the files it
names, the network to each address of Vault, Vault itself, the token and its policy,
the key, the plugin's socket and the ops endpoints. With --encryption-config it
checks kube-apiserver's EncryptionConfiguration, and with --kubeconfig
kube-apiserver.

A check that depends on a failed one is skipped, and names it. Run doctor on the
node, as the user that trousseau runs as, or as root; of a pod, run it in the
container, where trousseau's own flags are the defaults:

    kubectl -n kube-system exec daemonset/trousseau -- /trousseauctl doctor

Before trousseau is started, leave its checks out with --socket= --ops=.

It changes nothing. It asks Vault through the client that trousseau itself uses.
If the configuration logs in to Vault, doctor logs in too and revokes the token
at the end. This uses up one use of a secret ID that has a limited number. It asks
Vault first whether a token is a response-wrapping token, and then leaves it alone. It
encrypts and decrypts one random seed at each address, but only with a key that
exists there: encrypting could create the key. If the token may not read the key,
doctor first asks Vault to decrypt a made-up ciphertext; Vault's refusal tells
whether the key exists.

The exit code is 3 if a check fails. A warning means: it works, but it is a risk.`,
		Example: `  trousseauctl doctor
  trousseauctl doctor --socket= --ops=
  trousseauctl doctor --encryption-config /etc/kubernetes/encryption/encryption-config.yaml \
      --kubeconfig /etc/kubernetes/admin.conf
  trousseauctl doctor --ops 10.0.0.1,10.0.0.2,10.0.0.3 -o json`,
		Args: noArguments,
	}
	flags := cmd.Flags()
	flags.StringVar(&options.Config, "config", "/etc/trousseau/config.yaml", "trousseau's configuration `file`")
	flags.StringVar(&options.Socket, "socket", "unix:///run/trousseau/kms.sock", "`endpoint` of the plugin, trousseau's --listen-addr")
	flags.StringSliceVar(&endpoints, "ops", []string{fleet.DefaultAddr}, "`addresses` of the ops endpoints, trousseau's --ops-addr, of one node or of all nodes")
	flags.StringVar(&options.EncryptionConfig, "encryption-config", "", "kube-apiserver's EncryptionConfiguration `file`")
	flags.StringVar(&options.Kubeconfig, "kubeconfig", "", "kubeconfig `file` with credentials for kube-apiserver; without --ops, the nodes are found with it too")
	flags.StringVar(&options.Context, "context", "", "context `name` in the kubeconfig (default its current context)")
	pods.registerPods(flags)
	flags.DurationVar(&options.RequestTimeout, "request-timeout", 2500*time.Millisecond, "trousseau's --request-timeout")
	flags.DurationVar(&options.Timeout, "timeout", doctor.DefaultTimeout, "time limit for all checks together")
	out := outputFlag(cmd, "Doctor", "junit")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		// In a container, the first process is trousseau itself.
		if cmdline, err := os.ReadFile("/proc/1/cmdline"); err == nil {
			if err := takeOver(flags, cmdline); err != nil {
				return err
			}
		}
		if err := examine(&options, endpoints); err != nil {
			return usageError{err}
		}
		if pods.kubeconfig, pods.context = options.Kubeconfig, options.Context; pods.kubeconfig != "" && !flags.Changed("ops") {
			if find, err := pods.findOr(options.Nodes); err == nil { // the kubeconfig has a check of its own
				options.Find = find
			}
		}
		r := doctor.Run(cmd.Context(), options)
		var err error
		if cmd.Context().Err() != nil {
			err = errors.New("interrupted before all checks were made")
		}
		return out.write(cmd, result{Report: r, Findings: r.Findings, Cases: doctorCases(r), Err: err}, func(w io.Writer, paint painter) error {
			return printExamination(w, r, paint)
		})
	}
	return cmd
}

// flagsOfTrousseau are those of the daemon's flags that are flags of doctor too.
var flagsOfTrousseau = map[string]string{
	"config-file-path": "config", "listen-addr": "socket", "ops-addr": "ops", "request-timeout": "request-timeout",
}

// takeOver sets what was not given to what a command line in /proc says, if it is
// trousseau's.
func takeOver(flags *pflag.FlagSet, cmdline []byte) error {
	args := strings.Split(string(cmdline), "\x00")
	if filepath.Base(args[0]) != "trousseau" {
		return nil
	}
	for i, arg := range args {
		name, value, found := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		if !found && i+1 < len(args) {
			value = args[i+1]
		}
		flag := flags.Lookup(flagsOfTrousseau[name])
		if flag == nil || flag.Changed {
			continue
		}
		// What stands for all addresses of a node is not one to ask.
		if host, port, err := net.SplitHostPort(value); flag.Name == "ops" && err == nil && (host == "" || net.ParseIP(host).IsUnspecified()) {
			value = net.JoinHostPort("127.0.0.1", port)
		}
		if err := flag.Value.Set(value); err != nil {
			return fmt.Errorf("--%s of the running trousseau: %w", name, err)
		}
	}
	return nil
}

// examine checks the flags, and puts the ops endpoints into options.
func examine(options *doctor.Options, endpoints []string) (err error) {
	for name, d := range map[string]time.Duration{"timeout": options.Timeout, "request-timeout": options.RequestTimeout} {
		if d <= 0 {
			return fmt.Errorf("--%s: %s is not a positive duration such as 5s", name, d)
		}
	}
	if options.Socket != "" {
		socket, err := endpoint.Parse(options.Socket)
		if err != nil {
			return fmt.Errorf("--socket: %w", err)
		}
		options.Socket = socket.String()
	}
	if options.Nodes, err = fleet.ParseNodes(endpoints); err != nil {
		return fmt.Errorf("--ops: %w", err)
	}
	return nil
}

func doctorCases(r doctor.Report) (cases []testCase) {
	results := map[doctor.Result]caseResult{doctor.Fail: caseFailed, doctor.Warn: caseWarned, doctor.Skip: caseSkipped}
	for _, c := range r.Checks {
		cases = append(cases, testCase{named(c), "doctor", 0, results[c.Result], strings.TrimSpace(c.Seen + " " + c.Fix)})
	}
	return cases
}

var doctorMoods = map[doctor.Result]mood{doctor.OK: good, doctor.Warn: doubtful, doctor.Fail: bad}

func printExamination(w io.Writer, r doctor.Report, paint painter) error {
	var b strings.Builder
	for i := 0; i < len(r.Checks); i++ {
		c := r.Checks[i]
		what := []string{named(c)}
		// Checks that are skipped for one reason share a line.
		for c.Result == doctor.Skip && i+1 < len(r.Checks) && r.Checks[i+1].Result == doctor.Skip && r.Checks[i+1].Seen == c.Seen {
			i++
			what = append(what, r.Checks[i].Name)
		}
		result := string(c.Result)
		if c.Result == doctor.Warn || c.Result == doctor.Fail {
			result = strings.ToUpper(result)
		}
		text.Hanging(&b, paint(doctorMoods[c.Result], result)+strings.Repeat(" ", len("FAIL  ")-len(result)), strings.Join(slices.Compact(what), ", "))
		text.Paragraph(&b, "        ", c.Seen)
		if c.Fix != "" {
			text.Paragraph(&b, "        ", "Do: "+c.Fix)
		}
	}
	fmt.Fprintf(&b, "\n%s: %d ok, %d failed, %s, %d skipped\n",
		text.Count(len(r.Checks), "check"), r.OK, r.Failed, text.Count(r.Warned, "warning"), r.Skipped)
	if first := slices.IndexFunc(r.Checks, func(c doctor.Check) bool { return c.Result == doctor.Fail }); first >= 0 {
		text.Paragraph(&b, "", "Start with "+named(r.Checks[first])+": later checks may depend on it.")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// named joins a check and its subject.
func named(c doctor.Check) string { return strings.TrimSuffix(c.Name+" "+c.Subject, " ") }
