// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"reflect"
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
			{"monitoring", "login", "prometheusRule: {enabled: true}\ndashboard: {enabled: true}", false},
		} {
			values := "--values=testdata/values/" + tc.file + ".yaml"
			before := parse(t, h.template(namespace, values)).pod(t)
			after := parse(t, h.template(namespace, values, write(t, tc.change))).pod(t)
			if got := !reflect.DeepEqual(before, after); got != tc.want {
				t.Errorf("%s: pods are replaced: %t, want %t", tc.name, got, tc.want)
			}
		}
	})
}
