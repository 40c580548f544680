// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

// A set is a realistic file of values; all are in testdata/values.
type set struct {
	name string
	file string
}

// flag returns the argument for helm.
func (s set) flag() string { return "--values=" + s.file }

// static reports whether the set renders a static pod.
func (s set) static() bool { return strings.HasPrefix(s.name, "static-") }

// installer reports whether the set renders an installer of a static pod.
func (s set) installer() bool { return strings.HasPrefix(s.name, "installer-") }

func sets(t *testing.T) []set {
	t.Helper()
	files, err := filepath.Glob("testdata/values/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("finding sets of values: %v, %v", files, err)
	}
	var all []set
	for _, file := range files {
		all = append(all, set{name: strings.TrimSuffix(filepath.Base(file), ".yaml"), file: file})
	}
	return all
}

// objects are the rendered objects.
type objects []unstructured.Unstructured

func parse(t *testing.T, rendered string) objects {
	t.Helper()
	var all objects
	for document := range strings.SplitSeq(rendered, "\n---") {
		object := make(map[string]any)
		if err := yaml.UnmarshalStrict([]byte(strings.TrimPrefix(document, "---")), &object); err != nil {
			t.Fatalf("%v in:\n%s", err, document)
		}
		if len(object) > 0 {
			all = append(all, unstructured.Unstructured{Object: object})
		}
	}
	return all
}

// find returns the object with this kind and name, or nil.
func (o objects) find(kind, name string) *unstructured.Unstructured {
	for i := range o {
		if o[i].GetKind() == kind && o[i].GetName() == name {
			return &o[i]
		}
	}
	return nil
}

// pod returns Trousseau's pod: the static pod, the one that the installer keeps, or one
// created from the DaemonSet's template.
func (o objects) pod(t *testing.T) *corev1.Pod {
	t.Helper()
	if object := o.find("Pod", release); object != nil {
		return asPod(t, object.Object)
	}
	if o.find("DaemonSet", installer) != nil {
		return asPod(t, parse(t, o.manifest(t))[0].Object)
	}
	return o.created(t, release)
}

// manifest returns the static pod's manifest, as its installer reads it.
func (o objects) manifest(t *testing.T) string {
	t.Helper()
	return o.created(t, installer).Annotations["trousseau.io/static-pod"]
}

// created returns a pod of a DaemonSet.
func (o objects) created(t *testing.T, daemonSet string) *corev1.Pod {
	t.Helper()
	object := o.find("DaemonSet", daemonSet)
	if object == nil {
		t.Fatalf("rendered no DaemonSet named %s", daemonSet)
	}
	content, _, _ := unstructured.NestedMap(object.Object, "spec", "template")
	return asPod(t, content)
}

func asPod(t *testing.T, content map[string]any) *corev1.Pod {
	t.Helper()
	pod := new(corev1.Pod)
	if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(content, pod, true); err != nil {
		t.Fatalf("%v in %v", err, content)
	}
	return pod
}

// data returns a ConfigMap's data.
func (o objects) data(name string) map[string]string {
	object := o.find("ConfigMap", name)
	if object == nil {
		return nil
	}
	data, _, _ := unstructured.NestedStringMap(object.Object, "data")
	return data
}

// binary returns the path of the trousseau binary.
func binary(t *testing.T) string {
	t.Helper()
	path := os.Getenv("TROUSSEAU_BINARY")
	if path == "" {
		path = "bin/trousseau"
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join("../..", path)
	}
	if _, err := os.Stat(path); err != nil {
		t.Skipf("%v; run `make build`", err)
	}
	return path
}
