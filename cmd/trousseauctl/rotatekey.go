// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/trousseau-io/trousseau/internal/ctl/audit"
	"github.com/trousseau-io/trousseau/internal/ctl/finding"
	"github.com/trousseau-io/trousseau/internal/ctl/reencrypt"
	"github.com/trousseau-io/trousseau/internal/ctl/rotatekey"
	"github.com/trousseau-io/trousseau/internal/ctl/text"
)

func newRotateKey() *cobra.Command {
	var f reencryptFlags
	o := rotatekey.Options{}
	cmd := &cobra.Command{
		Use:   "rotate-key --kubeconfig FILE --endpoints URL,...",
		Short: "Rotate the key in Vault, and re-encrypt everything under the new version",
		Long: `Makes the steps of a rotation, each with the code of the command in brackets:

1. rotate: a new version of the transit key  [vault write -f .../rotate]
2. wait: for every plugin and every API server to have it, at most --wait
3. reencrypt: what is under an older version  [trousseauctl reencrypt]
4. audit: what is in etcd now, all of it  [trousseauctl audit]
5. raise: min_decryption_version, with --raise-min-decryption-version, to what the
   audit allows and no higher; not at all if that is unknown  [vault write .../config]

It begins only if the key is the one that the nodes use, by its key_id, and all of
them and all API servers are healthy. The output has the command of each step, to
make it by hand.

It keeps no state. If it fails or is interrupted, run it again with --resume: it
then takes the newest version in Vault for the new one, and does what is left.

Before you raise min_decryption_version, check that no etcd backup that you would
restore needs an older version, and no other cluster that uses the key: the audit
sees neither.

It needs an administrator's token. VAULT_ADDR, VAULT_TOKEN, VAULT_CACERT and
VAULT_NAMESPACE work as for the vault command. Vault must allow read on the key,
update on its path /rotate and, to raise, on /config. In the cluster it needs what
reencrypt needs. Its other flags are those of reencrypt.

Exit code 3 if reencrypt or audit has findings, or if it is unknown how far
min_decryption_version may be raised.`,
		Example: `  trousseauctl rotate-key --kubeconfig admin.conf --dry-run \
    --ops 10.0.0.1,10.0.0.2,10.0.0.3 \
    --endpoints https://10.0.0.1:2379 --cacert ca.crt --cert client.crt --key client.key
  trousseauctl rotate-key --kubeconfig admin.conf --ops 10.0.0.1,10.0.0.2,10.0.0.3 \
    --endpoints https://10.0.0.1:2379 --cacert ca.crt --cert client.crt --key client.key
  trousseauctl rotate-key --kubeconfig admin.conf --ops 10.0.0.1,10.0.0.2,10.0.0.3 \
    --endpoints https://10.0.0.1:2379 --cacert ca.crt --cert client.crt --key client.key \
    --resume --raise-min-decryption-version`,
		Args: noArguments,
	}
	f.register(cmd, "`URLs` of etcd's servers, as in kube-apiserver's --etcd-servers", 5*time.Minute)
	flags := cmd.Flags()
	flags.StringVar(&o.Mount, "transit-mount", "transit", "`path` of the transit engine")
	flags.StringVar(&o.Key, "transit-key", "trousseau-kms-vault", "`name` of the transit key")
	flags.BoolVar(&o.Resume, "resume", false, "complete an earlier rotation: rotate nothing, and do what is left")
	flags.BoolVar(&o.DryRun, "dry-run", false, "change nothing; check, and print the steps")
	flags.BoolVar(&o.Raise, "raise-min-decryption-version", false, "raise min_decryption_version as far as the audit allows")
	out := outputFlag(cmd, "RotateKey")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if !f.etcd.given() {
			return usageError{errors.New("--endpoints is missing: give etcd's servers, such as https://127.0.0.1:2379; without etcd, make the steps by hand")}
		}
		options, err := f.options(cmd)
		if err != nil {
			return err
		}
		if o.Vault, err = administrator(cmd.Context()); err != nil {
			return err
		}
		o.Namespace = strings.Trim(os.Getenv("VAULT_NAMESPACE"), "/")
		o.Mount = strings.Trim(o.Mount, "/")
		r, err := f.rotateKey(cmd, o, options)
		return out.write(cmd, result{Report: r, Findings: r.Findings, Err: err}, func(w io.Writer, paint painter) error {
			return printRotateKey(w, r, paint)
		})
	}
	return cmd
}

// rotatedKey is the result of rotate-key, with those of its steps.
type rotatedKey struct {
	rotatekey.Report
	Reencrypt *reencrypted `json:"reencrypt,omitempty"`
}

func (f *reencryptFlags) rotateKey(cmd *cobra.Command, o rotatekey.Options, options reencrypt.Options) (r rotatedKey, err error) {
	progress := f.tell(cmd, &options)
	defer progress.end()
	o.Plugins = options.Plugins
	o.Begins = func(s rotatekey.Step) {
		progress.end()
		fmt.Fprintf(cmd.ErrOrStderr(), "step %s\n", s.Name)
	}
	o.Await = func(ctx context.Context, hash string) error {
		options.KeyIDHash = hash
		return reencrypt.Await(ctx, options)
	}
	o.Reencrypt = func(ctx context.Context, hash string) ([]finding.Finding, error) {
		options.KeyIDHash = hash
		report, err := reencrypt.Run(ctx, options)
		r.Reencrypt = &reencrypted{Report: report}
		return report.Findings, err
	}
	o.Audit = func(ctx context.Context) (audit.Report, []finding.Finding, error) {
		findings, err := f.audit(ctx, r.Reencrypt, nil, progress)
		if err != nil {
			return audit.Report{}, nil, err
		}
		return *r.Reencrypt.Audit, findings, nil
	}
	o.Commands = rotatekey.Commands{
		Await:     "trousseauctl status" + given(cmd, newStatus()),
		Reencrypt: "trousseauctl reencrypt" + given(cmd, newReencrypt()),
		Audit:     "trousseauctl audit" + given(cmd, newAudit()),
	}
	r.Report, err = rotatekey.Run(cmd.Context(), o)
	return r, err
}

// given returns the flags of the command line that another command has too.
func given(cmd, other *cobra.Command) (flags string) {
	own := []string{"output", "dry-run"}
	cmd.Flags().Visit(func(flag *pflag.Flag) {
		if other.Flags().Lookup(flag.Name) != nil && !slices.Contains(own, flag.Name) {
			value := strings.Trim(flag.Value.String(), "[]")
			if strings.ContainsAny(value, "* ") { // of a shell
				value = "'" + value + "'"
			}
			flags += " --" + flag.Name + " " + value
		}
	})
	return flags
}

func printRotateKey(w io.Writer, r rotatedKey, paint painter) error {
	if r.Version == 0 { // the error says it all
		return nil
	}
	fmt.Fprintf(w, "%s: version %d, min_decryption_version %d\nkey_id %s\n\n", r.Key, r.Version, r.MinDecryptionVersion, r.KeyIDHash)
	for _, s := range r.Steps {
		fmt.Fprintf(w, "%s\t%s\t%s\n", s.Name, s.Result, s.Text)
	}
	fmt.Fprint(w, "\nBy hand:\n\n")
	for _, s := range r.Steps {
		fmt.Fprintf(w, "  %s\n", s.Command)
	}
	if r.Reencrypt == nil {
		return nil
	}
	var b strings.Builder
	for _, f := range r.Findings {
		if f.ID == rotatekey.NotRaised {
			b.WriteByte('\n')
			text.Paragraph(&b, "", f.Text+" "+f.Do)
		}
	}
	fmt.Fprint(w, b.String(), "\n")
	own := slices.DeleteFunc(slices.Clone(r.Findings), func(f finding.Finding) bool { return f.ID == rotatekey.NotRaised })
	return printReencrypted(w, *r.Reencrypt, own, paint)
}
