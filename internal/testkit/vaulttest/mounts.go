// SPDX-License-Identifier: Apache-2.0

package vaulttest

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

const (
	kindTransit = "transit"
	kindKV      = "kv"
)

// engines are the types of secrets engine that can be mounted. Only transit and version 2 of kv serve requests.
var engines = []string{kindTransit, kindKV, "pki", "ssh", "totp"}

// authMethods are the types of auth method that can be enabled.
var authMethods = []string{kindAppRole, kindCert, kindJWT, kindKubernetes}

// mounted holds the fields common to secrets engines and auth methods.
type mounted struct {
	kind      string // as in sys/mounts, sys/auth and mount_type
	namespace string
	path      string // without auth/, and without leading or trailing slash
	version   string // kv: "2"; empty means 1
	accessor  string
	uuid      string
}

func newMounted(kind, namespace, path string) mounted {
	return mounted{kind: kind, namespace: namespace, path: strings.Trim(path, "/"), accessor: kind + "_" + strings.ToLower(rand.Text()[:8]), uuid: newUUID()}
}

// builtIn holds the mounts that every Vault has and cannot unmount.
type builtIn struct{ mounts, auths []mounted }

func newBuiltIn() builtIn {
	return builtIn{
		mounts: []mounted{newMounted("cubbyhole", "", "cubbyhole"), newMounted("identity", "", "identity"), newMounted("system", "", "sys")},
		auths:  []mounted{newMounted("token", "", "token")},
	}
}

// describe returns an engine as reported by sys/mounts; sys/auth has more fields in its config.
func (m mounted) describe(config map[string]any) map[string]any {
	config["default_lease_ttl"], config["max_lease_ttl"], config["force_no_cache"] = 0, 0, false
	options := map[string]string{}
	if m.version != "" {
		options["version"] = m.version
	}
	return map[string]any{
		"type":                    m.kind,
		"description":             "",
		"accessor":                m.accessor,
		"uuid":                    m.uuid,
		"config":                  config,
		"options":                 options,
		"local":                   false,
		"seal_wrap":               false,
		"external_entropy_access": false,
		"plugin_version":          "",
		"running_plugin_version":  "v" + Version + "+builtin.vault",
		"running_sha256":          "",
	}
}

// listMounts is sys/mounts. Vault also lists the engines beside "data", for old clients; the fake does not.
func (st *store) listMounts(req *request) reply {
	data := map[string]any{}
	for _, m := range st.enginesIn(req.namespace) {
		data[m.path+"/"] = m.describe(map[string]any{})
	}
	return reply{data: data, mount: "system"}
}

// showMount is sys/internal/ui/mounts/<path>: the engine of a path, for every token that has a rule for something in it.
func (st *store) showMount(req *request, t *token) reply {
	for _, m := range st.enginesIn(req.namespace) {
		if strings.HasPrefix(req.name+"/", m.path+"/") && st.hasRuleIn(t, m.path+"/") {
			data := m.describe(map[string]any{})
			data["path"] = m.path + "/"
			return reply{data: data, mount: "system"}
		}
	}
	return refuse(http.StatusForbidden, fmt.Sprintf("preflight capability check returned 403, please ensure client's policies grant access to path %q", req.name+"/"))
}

func (st *store) hasRuleIn(t *token, prefix string) bool {
	if slices.Contains(t.policies, "root") {
		return true
	}
	for _, name := range t.policies {
		for rule := range st.policies[name].rules {
			if strings.HasPrefix(rule, prefix) {
				return true
			}
		}
	}
	return false
}

// listAuth is sys/auth.
func (st *store) listAuth(req *request) reply {
	data := map[string]any{}
	for _, m := range st.methodsIn(req.namespace) {
		data[m.path+"/"] = m.describe(map[string]any{"token_type": "default-service"})
	}
	return reply{data: data, mount: "system"}
}

func (st *store) enginesIn(namespace string) []mounted {
	all := slices.Clone(st.builtIn.mounts)
	for _, m := range st.mounts {
		if m.namespace == namespace {
			all = append(all, m.mounted)
		}
	}
	return all
}

func (st *store) methodsIn(namespace string) []mounted {
	all := slices.Clone(st.builtIn.auths)
	for _, m := range st.auths {
		if m.namespace == namespace {
			all = append(all, m.mounted)
		}
	}
	return all
}

// mountEngine is a write to sys/mounts/<path>.
func (st *store) mountEngine(req *request) reply {
	kind := req.fields.text("type")
	version := ""
	if given := req.fields.object("options")["version"]; given != nil {
		version = fmt.Sprint(given)
	}
	if plain, number, ok := strings.Cut(kind, "-v"); ok && plain == kindKV {
		kind, version = plain, number
	}
	switch refusal := mountable(kind, req.name, engines, st.enginesIn(req.namespace)); {
	case refusal != nil:
		return *refusal
	case kind == kindKV && !slices.Contains([]string{"", "1", "2"}, version):
		return refuse(http.StatusBadRequest, `nil backend of type "kv" returned from factory`)
	case req.fields.mistake == "":
		st.mounts[join(req.namespace, req.name)] = newMount(kind, version, req.namespace, req.name)
	}
	return reply{}
}

// enableAuth is a write to sys/auth/<path>.
func (st *store) enableAuth(req *request) reply {
	kind := req.fields.text("type")
	if refusal := mountable(kind, req.name, authMethods, st.methodsIn(req.namespace)); refusal != nil {
		return *refusal
	}
	st.auths[join(req.namespace, "auth/"+req.name)] = newAuthMount(kind, req.namespace, req.name)
	return reply{}
}

// mountable refuses an unknown type and a path that equals, contains or is inside an existing path.
func mountable(kind, path string, kinds []string, others []mounted) *reply {
	path += "/"
	switch {
	case kind == "":
		return refused(http.StatusBadRequest, "backend type must be specified as a string")
	case !slices.Contains(kinds, kind):
		return refused(http.StatusBadRequest, "plugin not found in the catalog: "+kind)
	}
	for _, other := range others {
		at := other.path + "/"
		switch {
		case !strings.HasPrefix(path, at) && !strings.HasPrefix(at, path):
		case slices.Contains([]string{"system", "identity", "cubbyhole"}, other.kind):
			return refused(http.StatusBadRequest, fmt.Sprintf("cannot mount %q", path))
		default:
			return refused(http.StatusBadRequest, "path is already in use at "+at)
		}
	}
	return nil
}
