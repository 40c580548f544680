// SPDX-License-Identifier: Apache-2.0

package monitoring

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// dashboard holds the tested fields of Grafana's dashboard model.
type dashboard struct {
	ID            any     `json:"id"`
	UID           string  `json:"uid"`
	Title         string  `json:"title"`
	SchemaVersion int     `json:"schemaVersion"`
	Panels        []panel `json:"panels"`
	Links         []link  `json:"links"`
	Annotations   struct {
		List []struct {
			Name       string     `json:"name"`
			Expr       string     `json:"expr"`
			Datasource datasource `json:"datasource"`
		} `json:"list"`
	} `json:"annotations"`
	Templating struct {
		List []variable `json:"list"`
	} `json:"templating"`
}

type link struct {
	Title string `json:"title"`
	URL   string `json:"url"`
}

type variable struct {
	Name  string          `json:"name"`
	Type  string          `json:"type"`
	Query json.RawMessage `json:"query"`
	// AllValue is what "All" selects instead of all values.
	AllValue string `json:"allValue"`
}

type datasource struct {
	Type string `json:"type"`
	UID  string `json:"uid"`
}

type panel struct {
	ID          int        `json:"id"`
	Type        string     `json:"type"`
	Title       string     `json:"title"`
	Description string     `json:"description"`
	Datasource  datasource `json:"datasource"`
	Collapsed   bool       `json:"collapsed"`
	Panels      []panel    `json:"panels"` // of a collapsed row
	Links       []link     `json:"links"`
	GridPos     struct {
		X int `json:"x"`
		Y int `json:"y"`
		W int `json:"w"`
		H int `json:"h"`
	} `json:"gridPos"`
	FieldConfig struct {
		Defaults struct {
			Unit string `json:"unit"`
		} `json:"defaults"`
	} `json:"fieldConfig"`
	Targets []target `json:"targets"`
}

type target struct {
	RefID        string     `json:"refId"`
	Expr         string     `json:"expr"`
	LegendFormat string     `json:"legendFormat"`
	Format       string     `json:"format"`
	Instant      bool       `json:"instant"`
	Range        bool       `json:"range"`
	Datasource   datasource `json:"datasource"`
}

func readDashboard(t *testing.T) dashboard {
	t.Helper()
	var d dashboard
	if err := json.Unmarshal([]byte(readText(t, dashboardFile)), &d); err != nil {
		t.Fatalf("%s: %v", dashboardFile, err)
	}
	return d
}

// expressions returns all PromQL texts: of panels, annotations and variables.
func (d dashboard) expressions() []expression {
	var all []expression
	for _, p := range d.Panels {
		for _, t := range p.Targets {
			all = append(all, expression{fmt.Sprintf("panel %q %s", p.Title, t.RefID), t.Expr})
		}
	}
	for _, a := range d.Annotations.List {
		if a.Expr != "" {
			all = append(all, expression{fmt.Sprintf("annotation %q", a.Name), a.Expr})
		}
	}
	for _, v := range d.Templating.List {
		if m := labelValues.FindStringSubmatch(v.query()); m != nil {
			all = append(all, expression{fmt.Sprintf("variable %q", v.Name), fmt.Sprintf("group by (%s) (%s)", m[2], m[1])})
		}
	}
	return all
}

// labelValues matches the query of a variable; it is Grafana's syntax, not PromQL.
var labelValues = regexp.MustCompile(`^label_values\((.*),\s*(\w+)\)$`)

// query returns a variable's query: a text, or an object that contains one.
func (v variable) query() string {
	var text string
	if json.Unmarshal(v.Query, &text) == nil {
		return text
	}
	var object struct {
		Query string `json:"query"`
	}
	_ = json.Unmarshal(v.Query, &object) // otherwise there is no query
	return object.Query
}

// withVariables replaces Grafana's variables in an expression.
func withVariables(expr string) string {
	return strings.NewReplacer("$__rate_interval", "1m", "$job", ".+", "$instance", ".+").Replace(expr)
}

func TestDashboardCanBeImported(t *testing.T) {
	d := readDashboard(t)
	// Grafana numbers dashboards itself. The uid keeps links and stars when a new version
	// is imported.
	if d.ID != nil || d.UID != "trousseau" {
		t.Errorf("id %v, uid %q, want none and trousseau", d.ID, d.UID)
	}
	if d.Title != "Trousseau" {
		t.Errorf("title %q", d.Title)
	}
	// Grafana 11 and later; older versions are migrated on import.
	if d.SchemaVersion < 39 {
		t.Errorf("schemaVersion %d", d.SchemaVersion)
	}
	defined := []string{"__rate_interval"}
	for i, v := range d.Templating.List {
		defined = append(defined, v.Name)
		if i == 0 && v.Type != "datasource" {
			t.Errorf("the first variable is %q, but the others need a data source", v.Type)
		}
	}
	for _, e := range d.expressions() {
		for _, m := range regexp.MustCompile(`\$\{?([a-zA-Z_]\w*)`).FindAllStringSubmatch(e.text, -1) {
			if !slices.Contains(defined, m[1]) {
				t.Errorf("%s: $%s is not a variable", e.where, m[1])
			}
		}
	}
	for _, l := range d.Links {
		checkDoc(t, "link "+l.Title, l.URL)
	}
	if len(d.Links) == 0 {
		t.Error("no link to the documentation")
	}
}

var (
	panelTypes = []string{"stat", "state-timeline", "table", "timeseries"}
	// From Grafana's list, packages/grafana-data/src/valueFormats/categories.ts.
	units = []string{"bytes", "none", "percentunit", "reqps", "s", "short"}
)

func TestDashboardPanels(t *testing.T) {
	d := readDashboard(t)
	ids := map[int]string{}
	covered := map[[2]int]string{}
	for _, p := range d.Panels {
		if other, taken := ids[p.ID]; taken || p.ID <= 0 {
			t.Errorf("panel %q: id %d is also used by %q", p.Title, p.ID, other)
		}
		ids[p.ID] = p.Title
		g := p.GridPos
		if g.X < 0 || g.Y < 0 || g.W <= 0 || g.H <= 0 || g.X+g.W > 24 {
			t.Errorf("panel %q: does not fit into 24 columns: %+v", p.Title, g)
		}
		for x := g.X; x < g.X+g.W; x++ {
			for y := g.Y; y < g.Y+g.H; y++ {
				if other, taken := covered[[2]int{x, y}]; taken {
					t.Fatalf("panels %q and %q overlap at %d, %d", p.Title, other, x, y)
				}
				covered[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			if p.Collapsed || len(p.Panels) > 0 || len(p.Targets) > 0 {
				t.Errorf("row %q: is collapsed, or holds panels", p.Title)
			}
			continue
		}
		p.check(t)
	}
}

func (p panel) check(t *testing.T) {
	t.Helper()
	if p.Title == "" || p.Description == "" {
		t.Errorf("panel %d %q: needs a title and a description", p.ID, p.Title)
	}
	if !slices.Contains(panelTypes, p.Type) {
		t.Errorf("panel %q: type %q", p.Title, p.Type)
	}
	if unit := p.FieldConfig.Defaults.Unit; !slices.Contains(units, unit) && p.Type != "table" {
		t.Errorf("panel %q: unit %q", p.Title, unit)
	}
	chosen := datasource{"prometheus", "${datasource}"}
	if p.Datasource != chosen {
		t.Errorf("panel %q: data source %v", p.Title, p.Datasource)
	}
	for _, l := range p.Links {
		checkDoc(t, p.Title, l.URL)
	}
	refs := map[string]bool{}
	for _, target := range p.Targets {
		if target.RefID == "" || refs[target.RefID] || target.Expr == "" || target.Datasource != chosen {
			t.Errorf("panel %q: target %+v", p.Title, target)
		}
		refs[target.RefID] = true
		if wantTable := p.Type == "table"; (target.Format == "table") != wantTable {
			t.Errorf("panel %q: %s has format %q", p.Title, target.RefID, target.Format)
		}
		// Exactly one of them, otherwise Grafana runs both queries.
		if target.Instant == target.Range {
			t.Errorf("panel %q: %s is instant %t, range %t", p.Title, target.RefID, target.Instant, target.Range)
		}
		// Series that are not aggregated must be selected by the variables.
		for _, s := range (expression{p.Title, target.Expr}).selectors() {
			labels := map[string]bool{}
			for _, m := range s.matchers {
				labels[m.label] = true
			}
			if !labels["job"] || !labels["instance"] {
				t.Errorf("panel %q: %s is not selected by job and instance", p.Title, s.metric)
			}
		}
	}
	if len(refs) == 0 {
		t.Errorf("panel %q: no targets", p.Title)
	}
}

// checkLegends fails the test unless each label in a legend exists on a metric of
// the expression.
func (p panel) checkLegends(t *testing.T, exposed page) {
	t.Helper()
	for _, target := range p.Targets {
		e := expression{p.Title, target.Expr}
		known := slices.Clone(ofTarget)
		for _, s := range e.selectors() {
			for label := range exposed.labels[s.metric] {
				known = append(known, label)
			}
		}
		// Grouped series have only the grouping labels.
		if groups := e.groups(); len(groups) > 0 && !strings.Contains(target.Expr, "without") {
			known = groups
		}
		for _, m := range regexp.MustCompile(`\{\{\s*(\w+)\s*\}\}`).FindAllStringSubmatch(target.LegendFormat, -1) {
			if !slices.Contains(known, m[1]) {
				t.Errorf("panel %q: %s has no label %s for its legend", p.Title, target.RefID, m[1])
			}
		}
	}
}
