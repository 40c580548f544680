// SPDX-License-Identifier: Apache-2.0

package monitoring

import (
	"regexp"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
)

// page is a parsed /metrics page.
type page struct {
	// labels holds the observed label values, by metric and label. It also contains
	// metrics without labels.
	labels map[string]map[string]map[string]bool
	series []series
	// classes are the possible errors of a call to Vault.
	classes map[string]bool
}

// series is one line of the page.
type series struct {
	metric string
	labels string // name="value",…; empty without any
	value  string
}

var line = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$`)

// parsePage parses the Prometheus text format as written by client_golang.
func parsePage(t *testing.T, text string) page {
	t.Helper()
	p := page{labels: map[string]map[string]map[string]bool{}, classes: vaultClasses(t)}
	for l := range strings.Lines(text) {
		if strings.HasPrefix(l, "#") {
			continue
		}
		m := line.FindStringSubmatch(strings.TrimSuffix(l, "\n"))
		if m == nil {
			t.Fatalf("not a line of the text format: %s", l)
		}
		p.series = append(p.series, series{m[1], m[2], m[3]})
		if p.labels[m[1]] == nil {
			p.labels[m[1]] = map[string]map[string]bool{}
		}
		for _, label := range matching.FindAllStringSubmatch(m[2], -1) {
			values := p.labels[m[1]][label[1]]
			if values == nil {
				values = map[string]bool{}
				p.labels[m[1]][label[1]] = values
			}
			values[label[3]] = true
		}
	}
	return p
}

// possible reports whether a label can have a value: it was observed, it is an
// outcome that a test cannot cause at will, or it is a name.
func (p page) possible(metric, label, value string) bool {
	switch {
	case p.labels[metric][label][value]:
		return true
	case metric == "trousseau_key_info", ofKubernetes(metric):
		return true
	case metric == "trousseau_kms_requests_total" && label == "code":
		return grpcCodes()[value]
	case metric == "trousseau_vault_requests_total" && label == "code":
		return p.classes[value]
	}
	return false
}

// vaultClasses returns the classes declared by internal/fault.
func vaultClasses(t *testing.T) map[string]bool {
	t.Helper()
	classes := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\t\w+ Class = "(\w+)"$`).FindAllStringSubmatch(readText(t, root+"/internal/fault/fault.go"), -1) {
		classes[m[1]] = true
	}
	if len(classes) == 0 {
		t.Fatal("internal/fault/fault.go declares no classes")
	}
	return classes
}

func grpcCodes() map[string]bool {
	names := map[string]bool{}
	for code := codes.OK; code <= codes.Unauthenticated; code++ {
		names[code.String()] = true
	}
	return names
}
