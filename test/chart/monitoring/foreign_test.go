// SPDX-License-Identifier: Apache-2.0

package monitoring

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// What Prometheus knows besides the job that is selected on the dashboard.
const (
	ours      = `job="kube-system/trousseau",instance="192.0.2.1:8095"`
	another   = `job="staging/trousseau",instance="192.0.2.1:8095"` // another release
	unrelated = `job="node",instance="192.0.2.1:8095"`              // with the same generic metrics
)

// showsOnlyTrousseau lets others appear after 15 minutes, and compares what each panel
// shows at 35 minutes with what it showed at 10. Values of others are far from ours.
func showsOnlyTrousseau(t *testing.T, board dashboard, exposed page) {
	run := unitTestCase{Name: "others appear", Interval: "15s", Series: []inputSeries{
		{"up{" + ours + "}", "1x160"},
		{"up{" + another + "}", "_x60 1x100"},
		{"up{" + unrelated + "}", "_x60 1x100"},
		{`ALERTS{alertname="TrousseauDegraded",alertstate="firing",` + ours + `}`, "1x160"},
		{`ALERTS{alertname="TrousseauAbsent",alertstate="firing"}`, "1x160"},
		{`ALERTS{alertname="TrousseauDegraded",alertstate="firing",` + another + `}`, "_x60 1x100"},
		{`ALERTS{alertname="NodeDown",alertstate="firing",` + unrelated + `}`, "_x60 1x100"},
	}}
	counter := regexp.MustCompile(`_(total|count|sum|bucket)$`)
	value := regexp.MustCompile(`([a-zA-Z_]\w*)="[^"]*"`)
	for _, s := range exposed.series {
		here, there := s.value+"x160", "_x60 -1e12x100"
		if s.value == "NaN" {
			continue
		}
		if counter.MatchString(s.metric) {
			here, there = s.value+"+1x160", "_x60 0+1e6x100"
		}
		run.Series = append(run.Series, inputSeries{series{s.metric, strings.TrimSuffix(ours+","+s.labels, ","), ""}.String(), here})
		// Groups of its own, where a panel does not select.
		labels := value.ReplaceAllStringFunc(s.labels, func(label string) string {
			if name, _, _ := strings.Cut(label, "="); name == "le" || name == "quantile" {
				return label
			} else {
				return name + `="other"`
			}
		})
		for _, target := range []string{another, unrelated} {
			if target == another || !strings.HasPrefix(s.metric, "trousseau_") {
				run.Series = append(run.Series, inputSeries{series{s.metric, strings.TrimSuffix(target+","+labels, ","), ""}.String(), there})
			}
		}
	}
	// Grafana inserts the selected values, or allValue instead of all of them.
	for i, v := range board.Templating.List {
		if v.AllValue != "" {
			t.Errorf("variable %s: allValue %q selects what is not Trousseau's", v.Name, v.AllValue)
		}
		if v.Type == "query" && !strings.Contains(v.query(), "trousseau_build_info") {
			t.Errorf("variable %d, %s: offers what is not Trousseau's: %s", i, v.Name, v.query())
		}
	}
	for _, e := range board.expressions() {
		if strings.HasPrefix(e.where, "variable") {
			continue
		}
		now := "(" + strings.NewReplacer("$__rate_interval", "1m", "$job", board.selected("job", "kube-system/trousseau"),
			"$instance", board.selected("instance", `192\\.0\\.2\\.1:8095`)).Replace(e.text) + ")"
		before := "last_over_time(" + now + "[15s:15s] offset 25m)"
		same := fmt.Sprintf("abs(%s - %s) <= 1e-6 * abs(%s) + 1e-9", now, before, before)
		if strings.Contains(e.text, "time()") {
			same = fmt.Sprintf("abs(%s - %s) <= 25 * 60 + 1", now, before)
		}
		for _, changed := range []string{
			fmt.Sprintf("count(%s unless (%s)) or vector(0)", now, same), // other values or further ones
			fmt.Sprintf("count(%s unless %s) or vector(0)", before, now), // fewer
		} {
			run.Exprs = append(run.Exprs, exprTest{Expr: changed, EvalTime: "35m", Samples: []sample{{"{}", 0}}})
		}
	}
	unitTest{Tests: []unitTestCase{run}}.run(t)
}

// selected returns the regular expression that Grafana inserts for a variable when
// all values are selected.
func (d dashboard) selected(variable, value string) string {
	for _, v := range d.Templating.List {
		if v.Name == variable && v.AllValue != "" {
			return v.AllValue
		}
	}
	return "(" + value + ")"
}

func (s series) String() string { return fmt.Sprintf("%s{%s}", s.metric, s.labels) }
