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
	"github.com/trousseau-io/trousseau/internal/endpoint"
)

func newAudit() *cobra.Command {
	var f auditFlags
	cmd := &cobra.Command{
		Use:   "audit (--endpoints URL,... | --snapshot FILE)",
		Short: "Report how objects are stored in etcd and which key versions they need",
		Long: `Reads etcd, from its servers or from a snapshot file, and reports for each
resource how its objects are stored: in the clear, encrypted with a local key, by
KMS v1, or by KMS v2, with the key_ids and the number of seeds. It answers three
questions:

- Is anything still in plaintext?
- Which key versions are still needed?
- How far can min_decryption_version be raised?

With --verify it unwraps every distinct seed once, through Vault with a
configuration of Trousseau, or through a plugin's socket, and lists the objects
that can no longer be decrypted. Use it to test a backup.

It changes nothing in etcd, and uses Vault only to decrypt. It prints names of
objects, key_ids and hashes, never a seed or any part of a value.

It uses 20 to 40 bytes of memory per key of a snapshot, and 16 bytes per distinct
seed, or about 1 KiB with --verify.

A resource should be encrypted if --resource names it. Without --resource, this
holds for secrets and for each resource with at least one encrypted object. Exit
code 3 if
- an object of such a resource is in the clear,
- a value is encrypted but malformed, so that kube-apiserver could not read it
  with any key, or
- with --verify, a seed cannot be unwrapped, or its state is unknown.`,
		Example: `  trousseauctl audit --snapshot backup.db
  trousseauctl audit --snapshot backup.db --verify --vault-config config.yaml \
    --html audit.html --title production
  trousseauctl audit --endpoints https://127.0.0.1:2379 \
    --cacert /etc/kubernetes/pki/etcd/ca.crt \
    --cert /etc/kubernetes/pki/apiserver-etcd-client.crt \
    --key /etc/kubernetes/pki/apiserver-etcd-client.key --resource secrets`,
		Args: noArguments,
	}
	f.register(cmd)
	out := outputFlag(cmd, "Audit")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := f.check(); err != nil {
			return usageError{err}
		}
		page, err := newPageFile(f.html, f.title)
		if err != nil {
			return err
		}
		defer page.discard()
		progress := newProgress(cmd.Context(), cmd.ErrOrStderr())
		progress.tell("starting", 0, 0)
		report, err := f.run(cmd.Context(), progress)
		progress.end()
		if err != nil {
			return err
		}
		if err := page.write(report); err != nil {
			return err
		}
		return out.report(cmd, report, len(report.Findings) == 0, func(w io.Writer, paint painter) error {
			return printAudit(w, report, paint)
		})
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
	endpoint            endpoint.Endpoint // plugin, parsed
	html, title         string
}

func (f *auditFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	f.etcd.register(cmd, "`URLs` of etcd's servers, as in kube-apiserver's --etcd-servers")
	flags.StringVar(&f.snapshot, "snapshot", "", "snapshot `file` of etcdctl snapshot save, to read instead of etcd's servers")
	flags.StringSliceVar(&f.resources, "resource", nil, "resources to audit, named as in EncryptionConfiguration (default all)")
	flags.BoolVar(&f.verify, "verify", false, "unwrap every distinct seed once")
	flags.StringVar(&f.vaultConfig, "vault-config", "", "config.yaml `file` of Trousseau, to verify through Vault")
	flags.StringVar(&f.plugin, "plugin", "", "`endpoint` of a plugin, as in EncryptionConfiguration, to verify through it")
	flags.StringVar(&f.html, "html", "", "`file` for an additional HTML report")
	flags.StringVar(&f.title, "title", "", "heading of the HTML report, such as the `name` of the cluster (default: the source)")
}

// check reports a mistake on the command line.
func (f *auditFlags) check() error {
	switch {
	case f.etcd.given() == (f.snapshot != ""):
		return errors.New("no source: give either --endpoints, such as https://127.0.0.1:2379, or --snapshot FILE")
	case f.verify && (f.vaultConfig == "") == (f.plugin == ""):
		return errors.New("--verify needs either --vault-config or --plugin, to unwrap the seeds")
	case f.title != "" && f.html == "":
		return errors.New("--title needs --html")
	case !f.verify && (f.vaultConfig != "" || f.plugin != ""):
		return errors.New("--vault-config and --plugin need --verify")
	}
	if err := f.etcd.check(); err != nil {
		return err
	}
	if err := checkResources("--resource", f.resources); err != nil {
		return err
	}
	if f.plugin != "" {
		var err error
		if f.endpoint, err = endpoint.Parse(f.plugin); err != nil {
			return fmt.Errorf("--plugin: %w", err)
		}
	}
	return nil
}

// checkResources reports a mistake in the resource names of a flag.
func checkResources(flag string, names []string) error {
	for _, r := range names {
		if r == "" || strings.ContainsAny(r, "/* ") {
			return fmt.Errorf("%s: %q is not a resource such as secrets or widgets.example.com", flag, r)
		}
	}
	return nil
}

// run audits. It connects for --verify first, because reading may take long.
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
		return audit.Report{}, fmt.Errorf("%s has no keys under %s: give kube-apiserver's --etcd-prefix as --prefix, and name resources as in EncryptionConfiguration",
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
