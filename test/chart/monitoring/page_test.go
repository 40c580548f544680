// SPDX-License-Identifier: Apache-2.0

package monitoring

import (
	"regexp"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
)

// page is what stands on /metrics.
type page struct {
	// labels are the values that were seen, by metric and label. A metric
	// without labels is there as well.
	labels map[string]map[string]map[string]bool
	series []series
	// classes are the errors that a call to Vault may end with.
	classes map[string]bool
}

// series is a line of the page.
type series struct {
	metric string
	labels string // name="value",…; empty without any
	value  string
}

var line = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$`)

// parsePage reads the Prometheus text format, as far as client_golang writes it.
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

// possible reports whether a label can have a value: it was seen, it is an
// outcome that a test cannot bring about at will, or it is a name of something.
func (p page) possible(metric, label, value string) bool {
	switch {
	case p.labels[metric][label][value]:
		return true
	case metric == "trousseau_key_info":
		return true
	case metric == "trousseau_kms_requests_total" && label == "code":
		return grpcCodes()[value]
	case metric == "trousseau_vault_requests_total" && label == "code":
		return p.classes[value]
	}
	return false
}

// vaultClasses are those that internal/fault declares.
// Vault's client for the sake of a few words.
func vaultClasses(t *testing.T) map[string]bool {
	t.Helper()
	classes := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\t\w+ Class = "(\w+)"$`).FindAllStringSubmatch(readText(t, root+"/internal/fault/fault.go"), -1) {
		classes[m[1]] = true
	}
	if len(classes) == 0 {
		t.Fatal("internal/fault/fault.go declares no class")
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
