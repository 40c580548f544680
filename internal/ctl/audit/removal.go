// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/trousseau-io/trousseau/internal/ctl/audit/drill"
	"github.com/trousseau-io/trousseau/internal/ctl/audit/stored"
	"github.com/trousseau-io/trousseau/internal/ctl/etcd"
)

// AnyUnreadable reports whether kube-apiserver cannot read some object, according to
// the drill. If so, read the objects again and pass each to AddUnreadable.
func (a *Audit) AnyUnreadable() bool {
	for _, r := range a.resources {
		for f := range r.groups {
			if f.form == stored.Malformed {
				return true
			}
		}
	}
	return slices.ContainsFunc(a.results, func(r drill.Result) bool { return r.Verdict == drill.Lost })
}

// AddUnreadable lists an object if it is unreadable. It returns nil.
func (a *Audit) AddUnreadable(o etcd.Object) error {
	if len(a.unreadable) == listed {
		return nil
	}
	v, _ := parse(o.Value)
	lost := v.Form == stored.Malformed
	if v.Wrapped != nil {
		i, known := a.seeds.index[digestOf(v)]
		lost = known && a.results[i].Verdict == drill.Lost
	}
	if lost {
		key := string(o.Key)
		a.unreadable = append(a.unreadable, Unreadable{Key: key, Remove: removal(a.prefix(key), key)})
	}
	return nil
}

// UnreadableObjects counts the unreadable objects, listed or not.
func (r *Report) UnreadableObjects() int {
	n := count(r, stored.Malformed)
	if r.Drill != nil {
		n += r.Drill.LostObjects
	}
	return n
}

func (a *Audit) reportUnreadable() []Unreadable {
	all := slices.Clone(a.unreadable)
	slices.SortFunc(all, func(x, y Unreadable) int { return cmp.Compare(x.Key, y.Key) })
	for i := range all {
		all[i].Key = quoted(all[i].Key)
	}
	return all
}

// removal returns the command that makes kube-apiserver delete the object of a key
// without reading it; "" if kube-apiserver has no such call. It is safe in a shell,
// although anyone who can write to etcd chooses keys.
//
// kubectl delete always reads an object first, and has no flag for the option. With
// --raw it sends the request as it is (corrupt_obj_deleter.go in
// k8s.io/apiserver/pkg/registry/generic/registry).
func removal(prefix, key string) string {
	resource, object := stored.Split(prefix, key)
	parts := strings.Split(object, "/")
	name, group, _ := strings.Cut(resource, ".")
	root := apiOf(resource)
	if root == "" && group != "" {
		// The version of a custom resource is nowhere in etcd's key.
		root = "apis/" + url.PathEscape(group) + "/VERSION"
	}
	if root == "" || len(parts) > 2 || slices.Contains(parts, "") {
		return ""
	}
	path := "/" + root
	if len(parts) == 2 {
		path += "/namespaces/" + url.PathEscape(parts[0])
	}
	path += "/" + url.PathEscape(name) + "/" + url.PathEscape(parts[len(parts)-1])
	return fmt.Sprintf("kubectl delete --raw '%s?ignoreStoreReadErrorWithClusterBreakingPotential=true'", path)
}

// apiOf returns the path of a built-in resource's group and version; "" if it is none.
func apiOf(resource string) string {
	for path, resources := range apis {
		if slices.Contains(strings.Fields(resources), resource) {
			return path
		}
	}
	return ""
}

// apis are the resources that kube-apiserver stores, named as [stored.Resource] does, by
// the path of their group and version. etcd's keys do not hold either. A test compares
// them with what kube-apiserver says that it serves. Namespaces and the resources of RBAC
// are not here: kube-apiserver 1.37 deletes none of them unread.
var apis = map[string]string{
	"api/v1":                               "configmaps endpoints events limitranges nodes persistentvolumeclaims persistentvolumes pods podtemplates replicationcontrollers resourcequotas secrets serviceaccounts services",
	"apis/admissionregistration.k8s.io/v1": "mutatingadmissionpolicies mutatingadmissionpolicybindings mutatingwebhookconfigurations validatingadmissionpolicies validatingadmissionpolicybindings validatingwebhookconfigurations",
	"apis/apiextensions.k8s.io/v1":         "customresourcedefinitions.apiextensions.k8s.io",
	"apis/apiregistration.k8s.io/v1":       "apiservices.apiregistration.k8s.io",
	"apis/apps/v1":                         "controllerrevisions daemonsets deployments replicasets statefulsets",
	"apis/autoscaling/v2":                  "horizontalpodautoscalers",
	"apis/batch/v1":                        "cronjobs jobs",
	"apis/certificates.k8s.io/v1":          "certificatesigningrequests clustertrustbundles podcertificaterequests",
	"apis/coordination.k8s.io/v1":          "leases",
	"apis/discovery.k8s.io/v1":             "endpointslices",
	"apis/flowcontrol.apiserver.k8s.io/v1": "flowschemas prioritylevelconfigurations",
	"apis/networking.k8s.io/v1":            "ingressclasses ingresses ipaddresses networkpolicies servicecidrs",
	"apis/node.k8s.io/v1":                  "runtimeclasses",
	"apis/policy/v1":                       "poddisruptionbudgets",
	"apis/resource.k8s.io/v1":              "deviceclasses devicetaintrules resourceclaims resourceclaimtemplates resourceslices",
	"apis/scheduling.k8s.io/v1":            "priorityclasses",
	"apis/storagemigration.k8s.io/v1":      "storageversionmigrations",
	"apis/storage.k8s.io/v1":               "csidrivers csinodes csistoragecapacities storageclasses volumeattachments volumeattributesclasses",
}
