// SPDX-License-Identifier: Apache-2.0

package monitoring

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// promtool runs promtool and fails the test with its output on an error.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	promtoolReads(t, "", args...)
}

// promtoolReads is promtool with a text on its standard input.
func promtoolReads(t *testing.T, stdin string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), fromEnv(t, "TROUSSEAU_PROMTOOL"), args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("promtool %q: %v\n%s", args, err, out)
	}
}

// unitTest holds the used fields of a `promtool test rules` file.
type unitTest struct {
	RuleFiles []string       `json:"rule_files,omitempty"`
	Every     string         `json:"evaluation_interval,omitempty"`
	Tests     []unitTestCase `json:"tests"`
}

type unitTestCase struct {
	Name     string        `json:"name"`
	Interval string        `json:"interval"`
	Series   []inputSeries `json:"input_series"`
	Exprs    []exprTest    `json:"promql_expr_test"`
}

type inputSeries struct {
	Series string `json:"series"`
	Values string `json:"values"`
}

type exprTest struct {
	Expr     string   `json:"expr"`
	EvalTime string   `json:"eval_time"`
	Samples  []sample `json:"exp_samples"`
}

type sample struct {
	Labels string  `json:"labels"`
	Value  float64 `json:"value"`
}

func readTests(t *testing.T) unitTest {
	t.Helper()
	var file unitTest
	readYAML(t, testsFile, &file)
	return file
}

// run evaluates it with promtool. JSON is valid YAML.
func (u unitTest) run(t *testing.T) {
	t.Helper()
	text, err := json.Marshal(u)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "expressions.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "test", "rules", file)
}
