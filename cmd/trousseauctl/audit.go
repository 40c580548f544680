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
	"github.com/trousseau-io/trousseau/internal/ctl/audit/page"
	"github.com/trousseau-io/trousseau/internal/ctl/audit/textfile"
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

The last answer counts every value that may need the key: a wrapped key that begins
with vault:vN: needs version N, whichever plugin wrote it, with KMS v2 or KMS v1.
If a value may need the key and says nothing of a version, the answer is unknown.
So it reads all keys of etcd, and warns about encrypted values outside of --prefix.

The progress of a migration, or of a rotation: if a resource is stored in more than
one way, it counts what is not yet stored as the resource was written last, such as
"312 of 4,020 secrets still under aescbc key1".

With --verify it unwraps every distinct seed once, through Vault with a
configuration of Trousseau, or through a plugin's socket. It lists the objects
that can no longer be decrypted, and for each the call that deletes it, in case the
key is gone for good. Use it to test a backup. What KMS v1 or another plugin wrapped
with a transit key is tried with each key of the configuration.

With -o prometheus it prints metrics for the textfile collector of node_exporter.

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
    --key /etc/kubernetes/pki/apiserver-etcd-client.key --resource secrets
  trousseauctl audit --snapshot backup.db --prefix /registry --prefix /kubernetes.io
  trousseauctl audit --snapshot backup.db -o prometheus`,
		Args: noArguments,
	}
	f.register(cmd)
	out := outputFlag(cmd, "Audit", formatPrometheus)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		err := f.check()
		if err == nil && f.outFile != "" && out.format != formatPrometheus {
			err = errors.New("--out-file needs -o prometheus")
		}
		if err != nil {
			return usageError{err}
		}
		html, err := createFile("--html", f.html)
		if err != nil {
			return err
		}
		defer html.discard()
		metrics, err := createFile("--out-file", f.outFile)
		if err != nil {
			return err
		}
		defer metrics.discard()
		progress := newProgress(cmd.Context(), cmd.ErrOrStderr())
		progress.tell("starting", 0, 0)
		report, err := f.run(cmd.Context(), progress)
		progress.end()
		if err != nil {
			return err
		}
		if err := html.write(0o600, func(w io.Writer) error { return page.Write(w, report, page.Options{Title: f.title, Version: version}) }); err != nil {
			return err
		}
		return out.write(cmd, result{Report: report, Findings: report.Findings}, func(w io.Writer, paint painter) error {
			switch {
			case out.table():
				return printAudit(w, report, paint)
			case metrics != nil:
				// node_exporter runs as another user. The metrics name no objects.
				return metrics.write(0o644, func(w io.Writer) error { return textfile.Write(w, report) })
			}
			return textfile.Write(w, report)
		})
	}
	return cmd
}

// formatPrometheus is the output format for node_exporter's textfile collector.
const formatPrometheus = "prometheus"

// auditFlags are the flags of audit.
type auditFlags struct {
	etcd                 etcdFlags
	snapshot             string
	resources            []string
	verify               bool
	vaultConfig, plugin  string
	endpoint             endpoint.Endpoint // plugin, parsed
	html, title, outFile string
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
	flags.StringVar(&f.outFile, "out-file", "", "`file` for the metrics of -o prometheus, instead of stdout; replaced as a whole")
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
		Prefixes: f.etcd.roots(),
		Asked:    slices.Compact(f.resources),
		Drill:    f.verify,
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
	reading, err := reader.Read(ctx, a.Prefixes(), a.Add)
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
		if a.AnyUnreadable() {
			if _, err := reader.again().Read(ctx, a.Prefixes(), a.AddUnreadable); err != nil {
				return audit.Report{}, err
			}
		}
	}
	source.Revision, source.Checksum, source.OutsideUnread = reading.Revision, reading.Checksum, reading.OutsideDenied
	for _, r := range reading.Resumptions {
		source.Resumptions = append(source.Resumptions, audit.Resumption{Revision: r.Revision, Key: r.Key})
	}
	return a.Report(source), nil
}
