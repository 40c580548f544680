// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"testing"
)

// An operator changes a value. Pods are replaced only if a process in them would not
// notice the change: Trousseau reloads config.yaml and the files it names, a Vault
// Agent reads its own files once.
func TestReplacedPods(t *testing.T) {
	eachHelm(t, func(t *testing.T, h helm) {
		for _, tc := range []struct {
			name, file, change string
			want               bool
		}{
			{"agent: nothing", "agent", "log: {level: info}", false},
			{"agent: flag", "agent", "log: {level: debug}", true},
			{"agent: Vault's address", "agent", "vault: {address: https://other.example}", true},
			{"agent: template", "agent", "vault: {keys: [another]}", true},
			{"agent: how to log in", "agent", "config: {agent: {autoAuth: {config: {role: other}}}}", true},
			{"agent: Vault's CA", "agent-everything", "vault: {caCert: \"-----BEGIN CERTIFICATE-----\\nAAAA\\n-----END CERTIFICATE-----\\n\"}", true},
			{"login: Vault's address", "login-account", "vault: {address: https://other.example}", false},
			{"login: role", "login-account", "config: {login: {kubernetes: {role: other}}}", false},
			{"login: Vault's CA", "login-account", "vault: {caCert: \"-----BEGIN CERTIFICATE-----\\nAAAA\\n-----END CERTIFICATE-----\\n\"}", false},
			{"agent: chart", "agent", newChart, false},
			{"login: chart", "login", newChart, false},
			{"static pod: chart", "static-login-cert", newChart, false},
			{"installer: chart", "installer-node", newChart, false},
			{"monitoring", "login", "prometheusRule: {enabled: true}\ndashboard: {enabled: true}", false},
		} {
			// A tag of its own, because the default follows the chart's appVersion.
			values := []string{"--values=testdata/values/" + tc.file + ".yaml", "--set=image.tag=v1"}
			before := parse(t, h.template(namespace, values...)).pod(t)
			h := h
			if tc.change == newChart {
				h.chart, tc.change = bumped(t), "{}"
			}
			after := parse(t, h.template(namespace, append(values, write(t, tc.change))...)).pod(t)
			if got := !reflect.DeepEqual(before, after); got != tc.want {
				t.Errorf("%s: pods are replaced: %t, want %t", tc.name, got, tc.want)
			}
		}
	})
}

// newChart is a change of nothing but the chart's own version and appVersion.
const newChart = "the next chart"

// bumped returns a copy of the chart with other versions.
func bumped(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(chartDir)); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "Chart.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	next := regexp.MustCompile(`(?m)^(version|appVersion): .*$`).ReplaceAll(text, []byte("$1: 999.0.0"))
	if bytes.Count(next, []byte(": 999.0.0")) != 2 {
		t.Fatalf("Chart.yaml has no version and appVersion:\n%s", text)
	}
	if err := os.WriteFile(file, next, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}
