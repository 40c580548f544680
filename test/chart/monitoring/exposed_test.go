// SPDX-License-Identifier: Apache-2.0

package monitoring

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// TestNamesAreExposed compares the names in rules, their tests and the dashboard
// with those exposed by a daemon after all its operations and by an audit, and
// evaluates the dashboard on them. Prometheus's linter checks the names themselves.
func TestNamesAreExposed(t *testing.T) {
	text := expose(t) + readText(t, auditFile)
	exposed := parsePage(t, text)
	exposed.addAPIServer(t)
	exposed.addState(t)
	t.Run("naming", func(t *testing.T) { promtoolReads(t, text, "check", "metrics") })
	t.Run("rules", func(t *testing.T) {
		for _, r := range readRules(t) {
			expression{r.Alert, r.Expr}.checkNames(t, exposed)
		}
	})
	t.Run("rules_test", func(t *testing.T) {
		for _, test := range readTests(t).Tests {
			for _, s := range test.Series {
				expression{test.Name, s.Series}.checkNames(t, exposed)
			}
		}
	})
	board := readDashboard(t)
	t.Run("dashboard", func(t *testing.T) {
		for _, e := range board.expressions() {
			e.checkNames(t, exposed)
		}
		for _, p := range board.Panels {
			p.checkLegends(t, exposed)
		}
	})
	t.Run("dashboard shows something", func(t *testing.T) { showsSomething(t, board, exposed) })
	t.Run("dashboard shows only Trousseau", func(t *testing.T) { showsOnlyTrousseau(t, board, exposed) })
	t.Run("documented", func(t *testing.T) { checkDocumented(t, exposed) })
}

// showsSomething evaluates each dashboard expression with promtool on the exposed
// metrics: each must yield a sample.
func showsSomething(t *testing.T, board dashboard, exposed page) {
	const target = `job="trousseau",instance="127.0.0.1:8095"`
	run := unitTestCase{
		Name: "the dashboard", Interval: "15s",
		Series: []inputSeries{
			{"up{" + target + "}", "1x40"},
			{`ALERTS{alertname="TrousseauDegraded",alertstate="firing",` + target + `}`, "1x40"},
		},
	}
	for _, s := range exposed.series {
		labels := strings.TrimSuffix(target+","+s.labels, ",")
		if s.value != "NaN" {
			run.Series = append(run.Series, inputSeries{fmt.Sprintf("%s{%s}", s.metric, labels), s.value + "x40"})
		}
	}
	for _, e := range board.expressions() {
		run.Exprs = append(run.Exprs, exprTest{
			Expr: fmt.Sprintf("count(%s) > bool 0", withVariables(e.text)), EvalTime: "10m",
			Samples: []sample{{"{}", 1}},
		})
	}
	unitTest{Tests: []unitTestCase{run}}.run(t)
}

// checkDocumented compares the table in docs/metrics.md with /metrics.
func checkDocumented(t *testing.T, exposed page) {
	documented := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(trousseau_\\w+)` \\|").FindAllStringSubmatch(readText(t, root+"/docs/metrics.md"), -1) {
		documented[m[1]] = true
	}
	shown := map[string]bool{}
	for _, s := range exposed.series {
		if strings.HasPrefix(s.metric, "trousseau_") {
			shown[regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(s.metric, "")] = true
		}
	}
	for name := range documented {
		if !shown[name] {
			t.Errorf("docs/metrics.md lists %s, which is not exposed", name)
		}
	}
	for name := range shown {
		if !documented[name] {
			t.Errorf("%s is exposed but missing in docs/metrics.md", name)
		}
	}
}
