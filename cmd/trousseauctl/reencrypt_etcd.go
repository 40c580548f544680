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
	"github.com/trousseau-io/trousseau/internal/ctl/reencrypt"
	"github.com/trousseau-io/trousseau/internal/keyid"
)

// reencrypted is the result of the run, and of the audit after it.
type reencrypted struct {
	// OK says that no object failed, and that the audit, if any, has no findings.
	OK bool `json:"ok"`
	reencrypt.Report
	Audit *audit.Report `json:"audit,omitempty"`
	// Elsewhere counts the objects that the audit found under another key_id or in
	// the clear.
	Elsewhere int `json:"underOther,omitempty"`
}

func (f *reencryptFlags) run(ctx context.Context, options reencrypt.Options, progress *progress) (r reencrypted, err error) {
	if r.Report, err = reencrypt.Run(ctx, options); err != nil {
		return r, err
	}
	r.OK = r.Failed() == 0
	if !f.etcd.given() {
		return r, nil
	}
	a := auditFlags{etcd: f.etcd, resources: slices.Clone(options.Resources)}
	report, err := a.run(ctx, progress)
	if err != nil {
		return r, fmt.Errorf("the objects were rewritten, but auditing etcd failed: %w", err)
	}
	r.Audit = &report
	for _, res := range report.Resources {
		for _, g := range res.Groups {
			if g.KeyIDHash != r.KeyIDHash {
				r.Elsewhere += g.Objects
			}
		}
	}
	r.OK = r.OK && r.Elsewhere == 0 && len(report.Findings) == 0
	return r, nil
}

// stale finds the objects in etcd that are not under a key_id. It is a
// reencrypt.Stale.
func (f *reencryptFlags) stale(ctx context.Context, resource, hash string, each func(path string, revision int64) error) error {
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
		if v := stored.Parse(o.Value); v.Object != nil && keyid.Hash(v.Object.KeyID) == hash {
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
