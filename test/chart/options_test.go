// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// An operator sets values that change nothing about what Trousseau does: where images
// come from, names, labels, environment, volumes. Each reaches every object or
// container that it is for.
func TestOptions(t *testing.T) {
	eachHelm(t, func(t *testing.T, h helm) {
		render := func(t *testing.T, set, values string) objects {
			return parse(t, h.template(namespace, "--values=testdata/values/"+set+".yaml", write(t, values)))
		}
		t.Run("registry", func(t *testing.T) {
			pod := render(t, "agent", "global: {imageRegistry: mirror.example:5000/}\nimage: {tag: v1}").pod(t)
			for _, want := range []string{"mirror.example:5000/hashicorp/vault:1.21.0", "mirror.example:5000/trousseau:v1"} {
				if images := images(pod); !slices.Contains(images, want) {
					t.Errorf("images %v, want %s among them", images, want)
				}
			}
		})
		t.Run("names", func(t *testing.T) {
			for values, want := range map[string]string{
				"nameOverride: kms":          "trousseau-kms",
				"fullnameOverride: kms-of-a": "kms-of-a",
			} {
				rendered := render(t, "agent-monitored", values+"\ndashboard: {enabled: false}")
				for _, object := range rendered {
					if !strings.HasPrefix(object.GetName(), want) {
						t.Errorf("%s: %s is named %s, want %s", values, object.GetKind(), object.GetName(), want)
					}
				}
				// Alerts and dashboard find the job by its name.
				monitor, err := json.Marshal(rendered.find("PodMonitor", want))
				if err != nil {
					t.Fatal(err)
				}
				if named := strings.Contains(string(monitor), `"replacement":"kube-system/`+want+`-trousseau","targetLabel":"job"`); named == strings.Contains(want, "trousseau") {
					t.Errorf("%s: the job is renamed: %t, in %s", values, named, monitor)
				}
			}
		})
		t.Run("labels", func(t *testing.T) {
			for _, set := range []string{"agent-everything", "static-login-cert"} {
				// Not even these change what selects the pods.
				rendered := render(t, set, "commonLabels: {example.com/team: security, app.kubernetes.io/name: other}")
				for _, object := range rendered {
					if got := object.GetLabels(); got["example.com/team"] != "security" || got["app.kubernetes.io/name"] != "trousseau" {
						t.Errorf("%s: %s %s has labels %v", set, object.GetKind(), object.GetName(), got)
					}
				}
				if got := rendered.pod(t).Labels; got["example.com/team"] != "security" || got["app.kubernetes.io/name"] != "trousseau" {
					t.Errorf("%s: the pod has labels %v", set, got)
				}
			}
		})
		t.Run("pod", func(t *testing.T) {
			pod := render(t, "agent-everything", "{}").pod(t)
			if s := pod.Spec.SecurityContext; s.SELinuxOptions == nil || s.SELinuxOptions.Type != "spc_t" || s.SeccompProfile == nil {
				t.Errorf("pod: security context %+v", s)
			}
			if a := pod.Spec.HostAliases; len(a) != 1 || a[0].IP != "192.0.2.1" {
				t.Errorf("hostAliases %v", a)
			}
			if c := pod.Spec.DNSConfig; c == nil || len(c.Options) != 1 {
				t.Errorf("dnsConfig %v", c)
			}
			for _, c := range append(pod.Spec.InitContainers, pod.Spec.Containers...) {
				s := c.SecurityContext
				if s == nil || s.SELinuxOptions == nil || s.SELinuxOptions.Level != "s0:c1,c2" || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem {
					t.Errorf("%s: security context %+v", c.Name, s)
				}
				if !slices.ContainsFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == "HTTPS_PROXY" }) {
					t.Errorf("%s: environment %v", c.Name, c.Env)
				}
				if !slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == "zoneinfo" }) {
					t.Errorf("%s: mounts %v", c.Name, c.VolumeMounts)
				}
			}
		})
		t.Run("ports of Vault", func(t *testing.T) {
			for values, want := range map[string]string{
				"vault: {address: https://vault.example:8300, addresses: [https://a.example, https://b.example:8300/]}": "[8300 443]",
				"vault: {address: http://vault.example}\nrequireTLS: false":                                             "[80]",
				"networkPolicy: {vaultPorts: [1234]}":                                                                   "[1234]",
				"config: {source: secret, secret: {name: x}}":                                                           "[8200]",
			} {
				policy := render(t, "agent-monitored", values).find("NetworkPolicy", release)
				rules := policy.Object["spec"].(map[string]any)["egress"].([]any)
				var ports []any
				for _, port := range rules[len(rules)-1].(map[string]any)["ports"].([]any) {
					ports = append(ports, port.(map[string]any)["port"])
				}
				if got := fmt.Sprint(ports); got != want {
					t.Errorf("%s: the policy allows ports %s, want %s", values, got, want)
				}
			}
		})
		t.Run("rules", func(t *testing.T) {
			rule, err := json.Marshal(render(t, "agent-everything", "{}").find("PrometheusRule", release))
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{"TrousseauDown", "TrousseauOfOurs"} {
				if !strings.Contains(string(rule), want) {
					t.Errorf("the rules lack %s", want)
				}
			}
		})
	})
}

func images(pod *corev1.Pod) []string {
	var all []string
	for _, c := range append(pod.Spec.InitContainers, pod.Spec.Containers...) {
		all = append(all, c.Image)
	}
	return all
}

// The schema has each value of values.yaml, and refuses unknown ones beside it.
func TestSchemaIsComplete(t *testing.T) {
	read := func(file string) map[string]any {
		text, err := os.ReadFile(chartDir + "/" + file)
		if err != nil {
			t.Fatal(err)
		}
		var content map[string]any
		if err := yaml.Unmarshal(text, &content); err != nil {
			t.Fatal(err)
		}
		return content
	}
	var compare func(path string, value any, schema map[string]any)
	compare = func(path string, value any, schema map[string]any) {
		fields, isObject := value.(map[string]any)
		properties, described := schema["properties"].(map[string]any)
		if !isObject || !described {
			return // a list, a value, or an object of Kubernetes
		}
		if schema["additionalProperties"] != false && path != "/global" {
			t.Errorf("%s accepts unknown fields", path)
		}
		for name, field := range fields {
			property, ok := properties[name].(map[string]any)
			if !ok {
				t.Errorf("%s/%s is not in the schema", path, name)
				continue
			}
			compare(path+"/"+name, field, property)
		}
		for name := range properties {
			if _, ok := fields[name]; !ok && path != "/config/login" {
				t.Errorf("%s/%s is in the schema only", path, name)
			}
		}
	}
	compare("", read("values.yaml"), read("values.schema.json"))
}
