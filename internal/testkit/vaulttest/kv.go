// SPDX-License-Identifier: Apache-2.0

package vaulttest

import (
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// kvItem is one version of a KV v2 secret. It is immutable.
type kvItem struct {
	data    map[string]any
	created time.Time
}

// PutSecret writes a new version of a secret in the KV v2 engine "secret" of the root namespace and returns its
// number. The path is as in `vault kv put secret/<path>`.
func (s *Server) PutSecret(path string, data map[string]any) int {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	m := s.store.mounts["secret"]
	m.put(path, maps.Clone(data), s.store.now())
	return len(m.values[path])
}

// kvOp determines the operation of a request to a KV v2 engine.
func kvOp(method, rest string) (op, name string) {
	name, ok := strings.CutPrefix(rest, "data/")
	switch {
	case !ok || name == "":
		return OpOther, ""
	case method == http.MethodGet:
		return OpKVRead, name
	case method == http.MethodPost:
		return OpKVWrite, name
	default:
		return OpOther, name
	}
}

func (m *mount) put(path string, data map[string]any, now time.Time) {
	m.values[path] = append(m.values[path], kvItem{data: data, created: now})
}

func (m *mount) kv(req *request) reply {
	if req.op == OpKVWrite {
		if !req.fields.has("data") {
			return refuse(http.StatusBadRequest, "no data provided")
		}
		data, mistake := req.fields.object("data"), m.checkAndSet(req)
		if mistake != "" || req.fields.mistake != "" {
			return refuse(http.StatusBadRequest, mistake)
		}
		m.put(req.name, data, req.now)
		return reply{data: m.metadata(req.name), mount: m.kind}
	}
	items := m.values[req.name]
	if len(items) == 0 {
		return refuse(http.StatusNotFound)
	}
	return reply{mount: m.kind, data: map[string]any{
		"data":     items[len(items)-1].data,
		"metadata": m.metadata(req.name),
	}}
}

// checkAndSet checks options.cas, if it is given: it must be the number of the newest version, or 0 if there is
// none (vault-plugin-secrets-kv, path_data.go). It returns what is wrong.
func (m *mount) checkAndSet(req *request) (mistake string) {
	cas, given := req.fields.object("options")["cas"]
	if !given {
		return ""
	}
	n, err := strconv.Atoi(fmt.Sprint(cas))
	switch {
	case err != nil:
		return "error parsing check-and-set parameter"
	case n != len(m.values[req.name]):
		return "check-and-set parameter did not match the current version"
	}
	return ""
}

// metadata describes the newest version.
func (m *mount) metadata(path string) map[string]any {
	items := m.values[path]
	return map[string]any{
		"created_time":    items[len(items)-1].created.UTC().Format(time.RFC3339Nano),
		"custom_metadata": nil,
		"deletion_time":   "",
		"destroyed":       false,
		"version":         len(items),
	}
}
