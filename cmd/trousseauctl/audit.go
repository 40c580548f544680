// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/trousseau-io/trousseau/internal/ctl/audit"
	"github.com/trousseau-io/trousseau/internal/ctl/audit/drill"
	"github.com/trousseau-io/trousseau/internal/ctl/etcd"
)

func newAudit() *cobra.Command {
	var f auditFlags
	cmd := &cobra.Command{
		Use:   "audit (--endpoints URL,... | --snapshot FILE)",
		Short: "Say how objects are really stored in etcd, and which key versions they need",
		Long: `Reads what is in etcd, from its servers or from a snapshot file, and says for
each resource how its objects are stored: in the clear, encrypted with a local
key, by KMS v1, or by KMS v2, under which key_id and how many seeds. Then it
answers: is anything still in plaintext? Which key versions are still needed?
What may min_decryption_version safely become?

With --verify it unwraps every distinct seed once, through Vault with one of
Trousseau's own configurations, or through a plugin's socket, and lists the
objects that can no longer be read: the drill for a backup.

It changes nothing in etcd and asks Vault for nothing but decrypting. It prints
names of objects, key_ids and hashes; never a seed, nor anything of a value.

Memory does not grow with the size of etcd, but for 20 to 40 bytes a key of a
snapshot, 16 bytes a distinct seed, and with --verify about a kilobyte a seed.

A resource is meant to be encrypted if --resource names it; without --resource,
if it is secrets, or if at least one of its objects is encrypted. Exit code 3 if
- an object of such a resource is in the clear,
- a value is encrypted, but such that kube-apiserver could not read it with any
  key (malformed), or
- with --verify, a seed cannot be unwrapped, or that cannot be found out.`,
		Example: `  trousseauctl audit --snapshot backup.db
  trousseauctl audit --snapshot backup.db --verify --vault-config config.yaml --html audit.html
  trousseauctl audit --endpoints https://127.0.0.1:2379 \
    --cacert /etc/kubernetes/pki/etcd/ca.crt \
    --cert /etc/kubernetes/pki/apiserver-etcd-client.crt \
    --key /etc/kubernetes/pki/apiserver-etcd-client.key --resource secrets`,
		Args: noArguments,
	}
	f.register(cmd)
	out := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := f.check(); err != nil {
			return usageError{err}
		}
		page, err := newPageFile(f.html)
		if err != nil {
			return err
		}
		defer page.discard()
		progress := newProgress(cmd.ErrOrStderr())
		report, err := f.run(cmd.Context(), progress)
		progress.end()
		if err != nil {
			return err
		}
		if err := page.write(report); err != nil {
			return err
		}
		if err := out.print(cmd.OutOrStdout(), report, func(w io.Writer) error { return printAudit(w, report, painterFor(w)) }); err != nil {
			return err
		}
		if len(report.Findings) > 0 {
			return errFinding
		}
		return nil
	}
	return cmd
}

// auditFlags are the flags of audit.
type auditFlags struct {
	etcd                etcdFlags
	snapshot            string
	resources           []string
	verify              bool
	vaultConfig, plugin string
	html                string
}

func (f *auditFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	f.etcd.register(cmd, "read etcd at these `URLs`, as in kube-apiserver's --etcd-servers")
	flags.StringVar(&f.snapshot, "snapshot", "", "read this `file` that etcdctl snapshot save wrote, offline")
	flags.StringSliceVar(&f.resources, "resource", nil, "look only at these, named as in EncryptionConfiguration")
	flags.BoolVar(&f.verify, "verify", false, "unwrap every distinct seed once")
	flags.StringVar(&f.vaultConfig, "vault-config", "", "verify through Vault, with this `file`: a config.yaml of Trousseau's")
	flags.StringVar(&f.plugin, "plugin", "", "verify through the plugin at this `endpoint`, as in EncryptionConfiguration")
	flags.StringVar(&f.html, "html", "", "also write a report for people to this `file`")
}

// check reports a mistake on the command line.
func (f *auditFlags) check() error {
	switch {
	case f.etcd.given() == (f.snapshot != ""):
		return errors.New("say what to read: either --endpoints, such as https://127.0.0.1:2379, or --snapshot and a file")
	case f.verify && (f.vaultConfig == "") == (f.plugin == ""):
		return errors.New("--verify needs one of --vault-config and --plugin, to know who unwraps the seeds")
	case !f.verify && (f.vaultConfig != "" || f.plugin != ""):
		return errors.New("--vault-config and --plugin go with --verify")
	}
	if err := f.etcd.check(); err != nil {
		return err
	}
	if err := checkResources("--resource", f.resources); err != nil {
		return err
	}
	if f.plugin != "" {
		if err := drill.CheckEndpoint(f.plugin); err != nil {
			return fmt.Errorf("--plugin: %w", err)
		}
	}
	return nil
}

// checkResources reports a mistake in the flag's names of resources.
func checkResources(flag string, names []string) error {
	for _, r := range names {
		if r == "" || strings.ContainsAny(r, "/* ") {
			return fmt.Errorf("%s: %q is no resource such as secrets or widgets.example.com", flag, r)
		}
	}
	return nil
}

// run audits. What is needed for --verify is tried first: reading may take long.
func (f *auditFlags) run(ctx context.Context, progress *progress) (audit.Report, error) {
	slices.Sort(f.resources)
	a := audit.New(audit.Options{
		Prefix: f.etcd.root(),
		Asked:  slices.Compact(f.resources),
		Drill:  f.verify,
	})
	unwrapper, err := f.unwrapper(ctx)
	if err != nil {
		return audit.Report{}, err
	}
	defer unwrapper.close()
	reader, err := f.reader(ctx, a, progress)
	if err != nil {
		return audit.Report{}, err
	}
	defer reader.close()
	source := reader.source
	source.Read = time.Now().UTC().Truncate(time.Second)
	reading, err := reader.Read(ctx, a.Prefixes(), func(o etcd.Object) error {
		a.Add(o)
		return nil
	})
	if err != nil {
		return audit.Report{}, err
	}
	if a.Objects() == 0 {
		return audit.Report{}, fmt.Errorf("%s has nothing under %s: give kube-apiserver's --etcd-prefix as --prefix, and resources as EncryptionConfiguration names them",
			strings.Join(source.Names, ", "), strings.Join(a.Prefixes(), ", "))
	}
	if f.verify {
		seeds := a.Seeds()
		results, err := drill.Run(ctx, drill.Options{Unwrapper: unwrapper, Progress: func(done, total int) {
			progress.tell("unwrapping seeds", int64(done), int64(total))
		}}, seeds)
		if err != nil {
			return audit.Report{}, err
		}
		a.Drilled(results)
	}
	source.Revision, source.Checksum = reading.Revision, reading.Checksum
	for _, r := range reading.Resumptions {
		source.Resumptions = append(source.Resumptions, audit.Resumption{Revision: r.Revision, Key: r.Key})
	}
	return a.Report(source), nil
}
