// SPDX-License-Identifier: Apache-2.0

package monitoring

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestAlertsFireAndResolve(t *testing.T) {
	promtool(t, "check", "rules", "--lint=all", "--lint-fatal", rulesFile)
	promtool(t, "test", "rules", testsFile)
}

// observed is what testsFile expects of one alert in one of its cases.
type observed struct {
	fires, resolves, quiet bool
}

func TestEachAlertIsTested(t *testing.T) {
	firing := regexp.MustCompile(`^ALERTS\{alertname="(\w+)",alertstate="firing"\}$`)
	seen := map[string]*observed{}
	for _, r := range readRules(t) {
		if seen[r.Alert] != nil {
			t.Errorf("two alerts have the name %s", r.Alert)
		}
		seen[r.Alert] = &observed{}
	}
	for _, test := range readTests(t).Tests {
		fired := map[string]bool{}
		for _, check := range test.Exprs {
			m := firing.FindStringSubmatch(check.Expr)
			if m == nil || seen[m[1]] == nil {
				t.Errorf("%s: %s does not test an alert", test.Name, check.Expr)
				continue
			}
			o := seen[m[1]]
			switch {
			case len(check.Samples) > 0:
				o.fires, fired[m[1]] = true, true
			case fired[m[1]]:
				o.resolves = true
			default:
				o.quiet = true
			}
		}
	}
	for name, o := range seen {
		if *o != (observed{true, true, true}) {
			t.Errorf("%s: tested %+v, want all three", name, *o)
		}
	}
}

// TestAlertsSayWhatToDo checks the text that an operator sees.
func TestAlertsSayWhatToDo(t *testing.T) {
	labelled := regexp.MustCompile(`\$labels\.(\w+)`)
	for _, r := range readRules(t) {
		if severity := r.Labels["severity"]; severity != "critical" && severity != "warning" {
			t.Errorf("%s: severity is %q", r.Alert, severity)
		}
		if !strings.HasPrefix(r.Alert, "Trousseau") {
			t.Errorf("%s: does not begin with Trousseau", r.Alert)
		}
		if r.Annotations["summary"] == "" {
			t.Errorf("%s: has no summary", r.Alert)
		}
		description := r.Annotations["description"]
		for what, part := range map[string]string{
			"what kube-apiserver does during it": "kube-apiserver", "a first command or what to search the log for": "`",
		} {
			if !strings.Contains(description, part) {
				t.Errorf("%s: the description does not say %s", r.Alert, what)
			}
		}
		checkDoc(t, r.Alert, r.Annotations["runbook_url"])
		// The template would silently omit a missing label.
		for _, m := range labelled.FindAllStringSubmatch(r.Annotations["summary"]+description, -1) {
			if !slices.Contains([]string{"address", "apiserver", "cronjob", "daemonset", "instance", "job", "key", "method", "namespace", "provider_name", "reason", "resource", "source"}, m[1]) || strings.Contains(r.Expr, "by (") && !strings.Contains(r.Expr, m[1]) {
				t.Errorf("%s: its series have no label %s", r.Alert, m[1])
			}
		}
	}
}

// TestDocumentedAlerts compares the table of docs/metrics.md with the rules.
func TestDocumentedAlerts(t *testing.T) {
	rows := regexp.MustCompile("(?m)^\\| `(Trousseau\\w+)` \\| (\\w+) \\|").FindAllStringSubmatch(readText(t, root+"/docs/metrics.md"), -1)
	var got, want []string
	for _, row := range rows {
		got = append(got, fmt.Sprintf("%s %s", row[1], row[2]))
	}
	for _, r := range readRules(t) {
		want = append(want, fmt.Sprintf("%s %s", r.Alert, r.Labels["severity"]))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("docs/metrics.md lists\n%s\nthe rules are\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
