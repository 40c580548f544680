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
)

func newDoctor() *cobra.Command {
	options := doctor.Options{}
	var pages []string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look for every reason why Trousseau might not work on this node",
		Long: `Looks at the configuration and the files it names, the way to Vault and Vault
itself, the token and what it may do, the key, the plugin's socket and the
operator's pages; with --encryption-config at kube-apiserver's
EncryptionConfiguration, and with --kubeconfig at kube-apiserver.

What depends on something that failed is skipped, and says on what. Run it on
the node, as the user that trousseau runs as, or as root. --socket= and --ops=
leave those out, before trousseau has been started.

It changes nothing. Where the configuration logs in to Vault it logs in too,
which uses up one use of a secret ID that has a number of them, and gives the
token back. It encrypts and decrypts one seed, which is made up.

Exit code 3 if a check fails. A warning is for what works, and is a risk.`,
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
	flags.StringSliceVar(&pages, "ops", []string{fleet.DefaultAddr}, "`addresses` of the operator's pages, trousseau's --ops-addr, of one node or of all")
	flags.StringVar(&options.EncryptionConfig, "encryption-config", "", "`file` that kube-apiserver's --encryption-provider-config names")
	flags.StringVar(&options.Kubeconfig, "kubeconfig", "", "`file` with credentials for kube-apiserver")
	flags.DurationVar(&options.RequestTimeout, "request-timeout", 2500*time.Millisecond, "trousseau's --request-timeout")
	flags.DurationVar(&options.Timeout, "timeout", doctor.DefaultTimeout, "how long the whole may take")
	out := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := examine(&options, pages); err != nil {
			return usageError{err}
		}
		r := doctor.Run(cmd.Context(), options)
		if cmd.Context().Err() != nil {
			return errors.New("stopped before everything was looked at")
		}
		if err := out.print(cmd.OutOrStdout(), r, func(w io.Writer) error { return printExamination(w, r, painterFor(w)) }); err != nil {
			return err
		}
		if !r.Healthy {
			return errFinding
		}
		return nil
	}
	return cmd
}

// examine checks what the command line says, and puts the pages into options.
func examine(options *doctor.Options, pages []string) (err error) {
	for name, d := range map[string]time.Duration{"timeout": options.Timeout, "request-timeout": options.RequestTimeout} {
		if d <= 0 {
			return fmt.Errorf("--%s: %s is not a positive duration such as 5s", name, d)
		}
	}
	if options.Socket != "" {
		if _, err := fleet.ParseEndpoint(options.Socket); err != nil {
			return fmt.Errorf("--socket: %w", err)
		}
	}
	if options.Nodes, err = fleet.ParseNodes(pages); err != nil {
		return fmt.Errorf("--ops: %w", err)
	}
	return nil
}

var doctorMoods = map[doctor.Result]mood{doctor.OK: good, doctor.Warn: doubtful, doctor.Fail: bad}

func printExamination(w io.Writer, r doctor.Report, paint painter) error {
	var text strings.Builder
	for i := 0; i < len(r.Findings); i++ {
		f := r.Findings[i]
		what := []string{named(f)}
		// What depends on one thing is skipped for one reason.
		for f.Result == doctor.Skip && i+1 < len(r.Findings) && r.Findings[i+1].Result == doctor.Skip && r.Findings[i+1].Seen == f.Seen {
			i++
			what = append(what, r.Findings[i].Check)
		}
		result := string(f.Result)
		if f.Result == doctor.Warn || f.Result == doctor.Fail {
			result = strings.ToUpper(result)
		}
		// Colors take no room.
		var line strings.Builder
		hanging(&line, fmt.Sprintf("%-4s  ", result), strings.Join(slices.Compact(what), ", "))
		text.WriteString(strings.Replace(line.String(), result, paint(doctorMoods[f.Result], result), 1))
		paragraph(&text, "        ", f.Seen)
		if f.Fix != "" {
			paragraph(&text, "        ", "Do: "+f.Fix)
		}
	}
	fmt.Fprintf(&text, "\n%s: %d ok, %d failed, %s, %d skipped\n",
		plural(len(r.Findings), "check"), r.OK, r.Failed, plural(r.Warned, "warning"), r.Skipped)
	if first := slices.IndexFunc(r.Findings, func(f doctor.Finding) bool { return f.Result == doctor.Fail }); first >= 0 {
		paragraph(&text, "", "Begin with "+named(r.Findings[first])+": what comes later may depend on it.")
	}
	_, err := io.WriteString(w, text.String())
	return err
}

// named is a check and what it looked at.
func named(f doctor.Finding) string { return strings.TrimSuffix(f.Check+" "+f.Subject, " ") }
