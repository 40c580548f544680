// SPDX-License-Identifier: Apache-2.0

// Package monitoring tests the chart's files for Prometheus and Grafana: each alert
// fires when it must and not earlier, the dashboard can be imported, and both use
// only names that the daemon exposes. promtool evaluates PromQL; TROUSSEAU_PROMTOOL
// and TROUSSEAU_BINARY are the paths of promtool and the daemon. A test is skipped
// if its binary is missing.
package monitoring

import (
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"testing"

	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/trousseau-io/trousseau/internal/testkit/documented"
)

const (
	root          = "../../.."
	rulesFile     = root + "/charts/trousseau/monitoring/rules.yaml"
	dashboardFile = root + "/charts/trousseau/monitoring/dashboard.json"
	testsFile     = "rules_test.yaml"
	// auditFile is what an audit writes, as its own test knows.
	auditFile = root + "/internal/ctl/audit/textfile/testdata/audit.prom"
)

// rule is an alert in rulesFile.
type rule struct {
	Alert       string            `json:"alert"`
	Expr        string            `json:"expr"`
	For         string            `json:"for"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

func readRules(t *testing.T) []rule {
	t.Helper()
	var file struct {
		Groups []struct {
			Name  string `json:"name"`
			Rules []rule `json:"rules"`
		} `json:"groups"`
	}
	readYAML(t, rulesFile, &file)
	var rules []rule
	for _, group := range file.Groups {
		rules = append(rules, group.Rules...)
	}
	if len(rules) == 0 {
		t.Fatalf("%s has no rules", rulesFile)
	}
	return rules
}

// readYAML decodes a file; an unknown field is an error.
func readYAML(t *testing.T, path string, into any) {
	t.Helper()
	asJSON, err := yaml.ToJSON([]byte(readText(t, path)))
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	decoder := json.NewDecoder(bytes.NewReader(asJSON))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

func readText(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// fromEnv returns the path in an environment variable, and skips the test if it is
// unset.
func fromEnv(t *testing.T, name string) string {
	t.Helper()
	path := os.Getenv(name)
	if path == "" {
		t.Skipf("%s is not set", name)
	}
	return path
}

// docURL matches a link to this repository's documentation, with an optional anchor.
var docURL = regexp.MustCompile(`^https://github\.com/trousseau-io/trousseau/blob/main/(docs/[a-z-]+\.md)(?:#([a-z0-9-]+))?$`)

// checkDoc fails the test unless a URL leads to a page of this repository and, if it
// has an anchor, to a heading of that page.
func checkDoc(t *testing.T, what, url string) {
	t.Helper()
	m := docURL.FindStringSubmatch(url)
	if m == nil {
		t.Errorf("%s: %q is not a page of the documentation", what, url)
		return
	}
	text, err := os.ReadFile(root + "/" + m[1])
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	if m[2] != "" && !documented.Anchors(string(text))[m[2]] {
		t.Errorf("%s: %s has no heading #%s", what, m[1], m[2])
	}
}
