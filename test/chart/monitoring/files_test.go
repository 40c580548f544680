// SPDX-License-Identifier: Apache-2.0

// Package monitoring tests what the chart gives to Prometheus and Grafana: that
// each alert fires when it must and not before, that the dashboard can be
// imported, and that both name only what the daemon really exposes. promtool
// does the PromQL; TROUSSEAU_PROMTOOL and TROUSSEAU_BINARY say where it and the
// daemon are, and a test is skipped without what it needs.
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
)

// rule is an alert of rulesFile.
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
		t.Fatalf("%s holds no rule", rulesFile)
	}
	return rules
}

// readYAML decodes a file; a field that into does not have is a mistake.
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

// fromEnv is the path that an environment variable gives; the test is skipped
// without one.
func fromEnv(t *testing.T, name string) string {
	t.Helper()
	path := os.Getenv(name)
	if path == "" {
		t.Skipf("%s is not set", name)
	}
	return path
}

// docURL is an address of this repository's documentation, with an anchor.
var docURL = regexp.MustCompile(`^https://github\.com/trousseau-io/trousseau/blob/main/(docs/[a-z-]+\.md)(?:#([a-z0-9-]+))?$`)

// checkDoc fails the test unless an address leads to a page of this repository
// and, if it has an anchor, to a heading there.
func checkDoc(t *testing.T, what, url string) {
	t.Helper()
	m := docURL.FindStringSubmatch(url)
	if m == nil {
		t.Errorf("%s: %q is no page of the documentation", what, url)
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
