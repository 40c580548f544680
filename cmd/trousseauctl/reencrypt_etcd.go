// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/trousseau-io/trousseau/internal/ctl/audit"
	"github.com/trousseau-io/trousseau/internal/ctl/audit/stored"
	"github.com/trousseau-io/trousseau/internal/ctl/etcd"
	"github.com/trousseau-io/trousseau/internal/ctl/finding"
	"github.com/trousseau-io/trousseau/internal/ctl/reencrypt"
	"github.com/trousseau-io/trousseau/internal/ctl/text"
	"github.com/trousseau-io/trousseau/internal/keyid"
)

// reencrypted is the result of the run, and of the audit after it.
type reencrypted struct {
	reencrypt.Report
	Audit *audit.Report `json:"audit,omitempty"`
	// Elsewhere counts the objects that the audit found in the clear, under another
	// key_id, or by another provider than the one that writes.
	Elsewhere int `json:"underOther,omitempty"`
}

func (f *reencryptFlags) run(ctx context.Context, options reencrypt.Options, progress *progress) (reencrypted, []finding.Finding, error) {
	return settled(func() (reencrypted, []finding.Finding, error) { return f.once(ctx, options, progress) })
}

// settled runs again if the audit finds objects elsewhere: the key was rotated between the
// two, or a write was on its way when the API server learned the key_id. What is there a
// second time under the same key_id has another cause.
func settled(run func() (reencrypted, []finding.Finding, error)) (r reencrypted, findings []finding.Finding, err error) {
	for last := ""; ; last = r.KeyIDHash {
		if r, findings, err = run(); err != nil || r.Elsewhere == 0 || r.KeyIDHash == last {
			return r, findings, err
		}
	}
}

func (f *reencryptFlags) once(ctx context.Context, options reencrypt.Options, progress *progress) (r reencrypted, findings []finding.Finding, err error) {
	r.Report, err = reencrypt.Run(ctx, options)
	if err != nil || !f.etcd.given() || options.DryRun {
		return r, r.Findings, err
	}
	var names []string
	for _, res := range r.Resources {
		names = append(names, res.Name)
	}
	findings, err = f.audit(ctx, &r, names, progress)
	return r, append(r.Findings, findings...), err
}

// audit reads in etcd how the resources, or all if nil, are stored after the run.
func (f *reencryptFlags) audit(ctx context.Context, r *reencrypted, resources []string, progress *progress) (findings []finding.Finding, err error) {
	a := auditFlags{etcd: f.etcd, resources: resources}
	report, err := a.run(ctx, progress)
	if err != nil {
		return nil, fmt.Errorf("the objects were rewritten, but auditing etcd failed: %w", err)
	}
	r.Audit = &report
	findings = slices.Clone(report.Findings)
	for _, res := range r.Resources {
		if n := elsewhere(report, res, r.KeyIDHash); n > 0 {
			r.Elsewhere += n
			findings = append(findings, finding.Finding{
				ID: "under-other", Severity: finding.Error, Subject: res.Name, Objects: n,
				Text: fmt.Sprintf("%s of %s not under the current key_id of the provider that writes.", text.Count(n, "object"), res.Name),
				Do:   "Run this again. If it is the same then, check that every API server is given with --api-server.",
			})
		}
	}
	return findings, nil
}

// elsewhere counts the objects of a resource that are not stored as those that
// kube-apiserver writes now.
func elsewhere(report audit.Report, r reencrypt.Resource, hash string) (n int) {
	for _, res := range report.Resources {
		if bare, _, _ := strings.Cut(r.Name, "."); res.Name != r.Name && res.Name != bare {
			continue // built-in resources are stored without their group
		}
		for _, g := range res.Groups {
			if g.KeyIDHash != hash || r.Provider != "" && g.Name != r.Provider {
				n += g.Objects
			}
		}
	}
	return n
}

// stale finds the objects in etcd that are not current. It is a reencrypt.Stale.
func (f *reencryptFlags) stale(ctx context.Context, resource string, current func(provider, keyIDHash string) bool, each func(path string, revision int64) error) error {
	reader, err := f.etcd.dial(ctx, nil)
	if err != nil {
		return err
	}
	defer reader.Close()
	var prefixes []string
	for _, root := range f.etcd.roots() {
		prefixes = append(prefixes, stored.Prefixes(root, resource)...)
	}
	_, err = reader.Read(ctx, prefixes, func(o etcd.Object) error {
		if v := stored.Parse(o.Value); v.Object != nil && current(v.Name, keyid.Hash(v.Object.KeyID)) {
			return nil
		}
		for _, prefix := range prefixes {
			if path, found := strings.CutPrefix(string(o.Key), prefix); found {
				return each(path, o.Revision)
			}
		}
		return nil
	})
	return err
}
