// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

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
names, the network to Vault, Vault itself, the token and its policy, the key, the
plugin's socket and the ops endpoints. With --encryption-config it checks
kube-apiserver's EncryptionConfiguration, and with --kubeconfig kube-apiserver.

A check that depends on a failed one is skipped, and names it. Run doctor on the
node, as the user that trousseau runs as, or as root. Before trousseau is
started, leave its checks out with --socket= --ops=.

It changes nothing. It asks Vault through the client that trousseau itself uses.
If the configuration logs in to Vault, doctor logs in too and revokes the token
at the end. This uses up one use of a secret ID that has a limited number. It
encrypts and decrypts one random seed, but only with a key that exists: encrypting
could create the key. If the token may not read the key, doctor first asks Vault
to decrypt a made-up ciphertext; Vault's refusal tells whether the key exists.

The exit code is 3 if a check fails. A warning means: it works, but it is a risk.`,
		Example: `  trousseauctl doctor
  trousseauctl doctor --socket= --ops=
  trousseauctl doctor --encryption-config /etc/kubernetes/encryption-config.yaml \
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
	out := outputFlag(cmd, "Doctor")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := examine(&options, endpoints); err != nil {
			return usageError{err}
		}
		if pods.kubeconfig, pods.context = options.Kubeconfig, options.Context; pods.kubeconfig != "" && !flags.Changed("ops") {
			if find, err := pods.findOr(options.Nodes); err == nil { // the kubeconfig has a check of its own
				options.Find = find
			}
		}
		r := doctor.Run(cmd.Context(), options)
		if cmd.Context().Err() != nil {
			return errors.New("interrupted before all checks were made")
		}
		return out.report(cmd, r, r.Healthy, func(w io.Writer, paint painter) error { return printExamination(w, r, paint) })
	}
	return cmd
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

var doctorMoods = map[doctor.Result]mood{doctor.OK: good, doctor.Warn: doubtful, doctor.Fail: bad}

func printExamination(w io.Writer, r doctor.Report, paint painter) error {
	var b strings.Builder
	for i := 0; i < len(r.Findings); i++ {
		f := r.Findings[i]
		what := []string{named(f)}
		// Checks that are skipped for one reason share a line.
		for f.Result == doctor.Skip && i+1 < len(r.Findings) && r.Findings[i+1].Result == doctor.Skip && r.Findings[i+1].Seen == f.Seen {
			i++
			what = append(what, r.Findings[i].Check)
		}
		result := string(f.Result)
		if f.Result == doctor.Warn || f.Result == doctor.Fail {
			result = strings.ToUpper(result)
		}
		// Escape sequences must not count for the width, so the color comes last.
		var line strings.Builder
		text.Hanging(&line, fmt.Sprintf("%-4s  ", result), strings.Join(slices.Compact(what), ", "))
		b.WriteString(strings.Replace(line.String(), result, paint(doctorMoods[f.Result], result), 1))
		text.Paragraph(&b, "        ", f.Seen)
		if f.Fix != "" {
			text.Paragraph(&b, "        ", "Do: "+f.Fix)
		}
	}
	fmt.Fprintf(&b, "\n%s: %d ok, %d failed, %s, %d skipped\n",
		text.Count(len(r.Findings), "check"), r.OK, r.Failed, text.Count(r.Warned, "warning"), r.Skipped)
	if first := slices.IndexFunc(r.Findings, func(f doctor.Finding) bool { return f.Result == doctor.Fail }); first >= 0 {
		text.Paragraph(&b, "", "Start with "+named(r.Findings[first])+": later checks may depend on it.")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// named joins a check and its subject.
func named(f doctor.Finding) string { return strings.TrimSuffix(f.Check+" "+f.Subject, " ") }
