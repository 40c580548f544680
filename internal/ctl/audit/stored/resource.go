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

// Resource returns the resource that a key of etcd belongs to, named as in
// EncryptionConfiguration. Prefix is kube-apiserver's --etcd-prefix with a slash
// after it; key begins with it.
//
// Built-in resources are stored at prefix/resource, whatever their group. Custom
// resources, their definitions and API services are stored at
// prefix/group/resource. Such a group has a dot in it, which no resource has.
func Resource(prefix, key string) string {
	resource, _ := Split(prefix, key)
	return resource
}

// Split returns the resource of a key as [Resource] does, and the rest of the key: the
// object's name, after its namespace and a slash if it has one.
func Split(prefix, key string) (resource, object string) {
	first, rest, _ := strings.Cut(strings.TrimPrefix(key, prefix), "/")
	second, last, _ := strings.Cut(rest, "/")
	if strings.Contains(first, ".") && second != "" {
		return second + "." + first, last
	}
	if name, ok := special[first]; ok {
		return name, rest
	}
	if name, ok := special[first+"/"+second]; ok {
		return name, last
	}
	return first, rest
}

// Prefixes returns the prefixes of the keys of a resource's objects; no other key
// has them. A resource whose group has a dot has two prefixes, because its name does
// not tell whether it is a custom resource.
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
