// SPDX-License-Identifier: Apache-2.0

package monitoring

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"k8s.io/apiserver/pkg/storage/value"
	envelope "k8s.io/apiserver/pkg/storage/value/encrypt/envelope/metrics"
	"k8s.io/component-base/metrics/legacyregistry"
)

// addAPIServer adds the metrics that kube-apiserver's own code exposes for a KMS
// plugin.
func (p page) addAPIServer(t *testing.T) {
	t.Helper()
	envelope.RegisterMetrics()
	value.RegisterMetrics()
	envelope.RecordKeyIDFromStatus("trousseau", "key", "apiserver")
	envelope.RecordKMSOperationLatency("trousseau", "/v2.KeyManagementService/Status", time.Millisecond, nil)
	value.RecordTransformation("secrets", "from_storage", "k8s:enc:kms:v2:trousseau:", time.Millisecond, nil)
	families, err := legacyregistry.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		names := []string{family.GetName()}
		if family.GetMetric()[0].GetHistogram() != nil {
			names = []string{family.GetName() + "_count", family.GetName() + "_sum", family.GetName() + "_bucket"}
		}
		for _, name := range names {
			p.labels[name] = map[string]map[string]bool{}
			for _, label := range family.GetMetric()[0].GetLabel() {
				p.labels[name][label.GetName()] = map[string]bool{label.GetValue(): true}
			}
		}
	}
}

// kube-state-metrics documents its metrics in its module. We do not import that
// module, so its digest is here instead of in a go.sum.
const (
	stateModule = "k8s.io/kube-state-metrics/v2@v2.15.0"
	stateDigest = "h1:0qSA+hVCj5p2QSYnbz6NPNflct3C1kPAIhF8ZtMKpIk="
)

// addState adds the documented metrics of kube-state-metrics for nodes and
// DaemonSets.
func (p page) addState(t *testing.T) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", stateModule)
	cmd.Dir = t.TempDir() // must not change our modules
	out, err := cmd.Output()
	var module struct{ Dir, Sum, Error string }
	if err := json.Unmarshal(out, &module); err != nil {
		t.Fatalf("%s: %v", cmd, err)
	}
	if err != nil || module.Sum != stateDigest {
		t.Fatalf("%s: %v: digest %s, want %s: %s", cmd, err, module.Sum, stateDigest, module.Error)
	}
	row := regexp.MustCompile(`(?m)^\| (kube_\w+) +\|(.*)$`)
	for _, file := range []string{"cluster/node-metrics.md", "workload/daemonset-metrics.md", "workload/cronjob-metrics.md"} {
		for _, m := range row.FindAllStringSubmatch(readText(t, filepath.Join(module.Dir, "docs/metrics", file)), -1) {
			p.labels[m[1]] = map[string]map[string]bool{}
			for _, label := range regexp.MustCompile("`(\\w+)`=&lt;").FindAllStringSubmatch(m[2], -1) {
				p.labels[m[1]][label[1]] = map[string]bool{}
			}
		}
	}
}

// ofKubernetes reports whether a metric is not Trousseau's.
func ofKubernetes(metric string) bool {
	return strings.HasPrefix(metric, "apiserver_") || strings.HasPrefix(metric, "kube_")
}
