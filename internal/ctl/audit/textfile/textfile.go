// SPDX-License-Identifier: Apache-2.0

// Package textfile writes an audit as metrics, for the textfile collector of
// node_exporter.
package textfile

import (
	"io"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

	"github.com/trousseau-io/trousseau/internal/ctl/audit"
	"github.com/trousseau-io/trousseau/internal/ctl/audit/stored"
)

// Write writes r in the text format. Every series has a label source, so that the files
// of several audits can lie in one directory.
func Write(w io.Writer, r audit.Report) error {
	registry := prometheus.NewRegistry()
	source := prometheus.WrapRegistererWith(prometheus.Labels{"source": strings.Join(r.Source.Names, ",")}, registry)
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "trousseau_audit_" + name, Help: help}, labels)
		source.MustRegister(g)
		return g
	}
	gauge("timestamp_seconds", "Time of the audit.").WithLabelValues().Set(float64(r.Source.Read.Unix()))
	objects := gauge("objects", "Objects in etcd, by the form in which they are stored, and the transit key and version that they need. Version 0 is none.",
		"resource", "form", "provider", "key", "version")
	clear := gauge("in_the_clear_objects", "Objects in the clear, of a resource that should be encrypted.", "resource")
	unreadable := gauge("unreadable_objects", "Objects that kube-apiserver cannot read: malformed, or lost, because Vault no longer decrypts their seed. Unknown could not be verified.", "reason")
	left := gauge("left_objects", "Objects that are not stored as their resource was written last: a migration or rotation that is not over.", "resource")
	for _, res := range r.Resources {
		if res.Encrypted {
			clear.WithLabelValues(res.Name).Set(float64(res.Clear))
			left.WithLabelValues(res.Name).Set(float64(res.Progress.Objects()))
		}
		for _, g := range res.Groups {
			objects.WithLabelValues(res.Name, g.Form, g.Name, keyOf(r, g), strconv.Itoa(g.WrappedBy)).Add(float64(g.Objects))
		}
		unreadable.WithLabelValues(string(stored.Malformed)).Add(float64(res.Malformed))
	}
	if d := r.Drill; d != nil {
		unreadable.WithLabelValues("lost").Set(float64(d.LostObjects))
		unreadable.WithLabelValues("unknown").Set(float64(d.UnknownObjects))
	}
	families, err := registry.Gather()
	if err != nil {
		return err
	}
	encoder := expfmt.NewEncoder(w, expfmt.NewFormat(expfmt.TypeTextPlain))
	for _, family := range families {
		if err := encoder.Encode(family); err != nil {
			return err
		}
	}
	return nil
}

// keyOf returns the transit key of a group, with its engine; "" if it is not recorded.
func keyOf(r audit.Report, g audit.Group) string {
	for _, k := range r.KeyIDs {
		if g.KeyID != "" && k.KeyID == g.KeyID && k.Key != "" {
			return k.Engine + "/" + k.Key
		}
	}
	return ""
}
