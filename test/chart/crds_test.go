// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// The Prometheus operator's CRDs are in its module. We do not import that module, so
// its digest is here instead of in a go.sum.
const (
	operatorModule = "github.com/prometheus-operator/prometheus-operator@v0.85.0"
	operatorDigest = "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s="
)

// installCRDs installs the CRDs PodMonitor and PrometheusRule, with their schemas.
func installCRDs(t *testing.T, api *testbed.APIServer) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", operatorModule)
	cmd.Dir = t.TempDir() // must not change our modules
	out, err := cmd.Output()
	var module struct{ Dir, Sum, Error string }
	if err := json.Unmarshal(out, &module); err != nil {
		t.Fatalf("%s: %v", cmd, err)
	}
	if err != nil || module.Error != "" {
		t.Fatalf("%s: %v: %s", cmd, err, module.Error)
	}
	if module.Sum != operatorDigest {
		t.Fatalf("%s has digest %s, want %s", operatorModule, module.Sum, operatorDigest)
	}
	for _, kind := range []string{"podmonitors", "prometheusrules"} {
		// Too long for the annotation of client-side apply.
		api.Kubectl("apply", "--server-side", "-f", filepath.Join(module.Dir, "example/prometheus-operator-crd/monitoring.coreos.com_"+kind+".yaml"))
		api.Kubectl("wait", "--for=condition=Established", "--timeout="+time.Minute.String(), "crd/"+kind+".monitoring.coreos.com")
	}
}
