// SPDX-License-Identifier: Apache-2.0

package stored

import "strings"

// special are the resources that are not stored under their name
// (SpecialDefaultResourcePrefixes in pkg/kubeapiserver/default_storage_factory_builder.go
// of k8s.io/kubernetes).
var special = map[string]string{
	"controllers":        "replicationcontrollers",
	"services/endpoints": "endpoints",
	"services/specs":     "services",
	"minions":            "nodes",
	"ingress":            "ingresses",
}

// Resource tells which resource a key of etcd belongs to, as EncryptionConfiguration
// names it. Prefix is kube-apiserver's --etcd-prefix with a slash after it, and
// key begins with it.
//
// Behind the prefix stands the resource, or its group and then the resource:
// the former for what Kubernetes is made with, whatever its group, the latter for
// custom resources and for what defines them, and API services. A group of the
// latter has a dot in it, which no resource has.
func Resource(prefix, key string) string {
	rest := strings.TrimPrefix(key, prefix)
	first, rest, _ := strings.Cut(rest, "/")
	second, _, _ := strings.Cut(rest, "/")
	if strings.Contains(first, ".") && second != "" {
		return second + "." + first
	}
	if name, ok := special[first]; ok {
		return name
	}
	if name, ok := special[first+"/"+second]; ok {
		return name
	}
	return first
}

// Prefixes are where a resource is stored: what the keys of its objects begin
// with, and no others. Of a resource with such a group there are two,
// since only its definition tells which it is.
func Prefixes(prefix, resource string) []string {
	name, group, _ := strings.Cut(resource, ".")
	bare := prefix + name + "/"
	for path, of := range special {
		if of == name {
			bare = prefix + path + "/"
		}
	}
	if strings.Contains(group, ".") {
		return []string{prefix + group + "/" + name + "/", bare}
	}
	return []string{bare}
}
