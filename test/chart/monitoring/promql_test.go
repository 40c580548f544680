// SPDX-License-Identifier: Apache-2.0

package monitoring

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// expression is a PromQL text and its location.
type expression struct {
	where string
	text  string
}

// selector is a metric in an expression, with its matchers.
type selector struct {
	metric   string
	matchers []matcher
}

type matcher struct {
	label string
	// values are the compared values: for a regular expression, its alternatives. Nil
	// if they are not plain words, for example with a dashboard variable or ".*".
	values []string
}

// Regular expressions are enough here; promtool does the real parsing. up is
// Prometheus's own metric for a scrape.
var (
	selecting  = regexp.MustCompile(`\b((?:trousseau|go|process|promhttp|apiserver|kube)_[a-zA-Z0-9_]+|up)\b(?:\{([^}]*)\})?`)
	matching   = regexp.MustCompile(`([a-zA-Z_]\w*)\s*(=~|!~|!=|=)\s*"([^"]*)"`)
	grouping   = regexp.MustCompile(`\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)`)
	relabeling = regexp.MustCompile(`(?s)label_replace\(.*?,\s*"(\w+)"`)
	plainWords = regexp.MustCompile(`^\w+(\|\w+)*$`)
)

func (e expression) selectors() []selector {
	var found []selector
	for _, m := range selecting.FindAllStringSubmatch(e.text, -1) {
		s := selector{metric: m[1]}
		for _, m := range matching.FindAllStringSubmatch(m[2], -1) {
			var values []string
			if plainWords.MatchString(m[3]) {
				values = strings.Split(m[3], "|")
			}
			s.matchers = append(s.matchers, matcher{m[1], values})
		}
		found = append(found, s)
	}
	return found
}

// groups returns the labels used for grouping and joining.
func (e expression) groups() []string {
	var labels []string
	for _, m := range grouping.FindAllStringSubmatch(e.text, -1) {
		for label := range strings.SplitSeq(m[1], ",") {
			if label = strings.TrimSpace(label); label != "" {
				labels = append(labels, label)
			}
		}
	}
	return labels
}

// ofTarget are the labels added by Prometheus. cluster is a common external label.
var ofTarget = []string{"job", "instance", "cluster"}

// checkNames fails the test unless the daemon, kube-apiserver or kube-state-metrics
// exposes all metrics, labels and label values of an expression.
func (e expression) checkNames(t *testing.T, p page) {
	t.Helper()
	known := slices.Clone(ofTarget)
	for _, m := range relabeling.FindAllStringSubmatch(e.text, -1) {
		known = append(known, m[1])
	}
	selectors := e.selectors()
	if len(selectors) == 0 && !strings.Contains(e.text, "ALERTS{") {
		t.Errorf("%s: no metric in %s", e.where, e.text)
	}
	for _, s := range selectors {
		if s.metric == "up" {
			continue
		}
		labels, ok := p.labels[s.metric]
		if !ok {
			t.Errorf("%s: nothing exposes %s", e.where, s.metric)
			continue
		}
		for label := range labels {
			known = append(known, label)
		}
		for _, m := range s.matchers {
			if slices.Contains(ofTarget, m.label) {
				continue
			}
			if labels[m.label] == nil {
				t.Errorf("%s: %s has no label %s", e.where, s.metric, m.label)
				continue
			}
			for _, value := range m.values {
				if !p.possible(s.metric, m.label, value) {
					t.Errorf("%s: no series of %s has %s=%q", e.where, s.metric, m.label, value)
				}
			}
		}
	}
	for _, label := range e.groups() {
		if !slices.Contains(known, label) {
			t.Errorf("%s: groups by %s, which no metric of the expression has", e.where, label)
		}
	}
}

func (e expression) String() string { return fmt.Sprintf("%s: %s", e.where, e.text) }
