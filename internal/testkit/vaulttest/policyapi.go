// SPDX-License-Identifier: Apache-2.0

package vaulttest

import (
	"net/http"
	"strings"
)

// readPolicy is a read of sys/policies/acl/<name>. Policies that Go code has set are there too.
func (st *store) readPolicy(req *request) reply {
	name := strings.ToLower(req.name)
	found, ok := st.policies[name]
	if !ok && name != "root" {
		return refuse(http.StatusNotFound)
	}
	return reply{data: map[string]any{"name": name, "policy": found.text}, mount: "system"}
}

// writePolicy is a write of sys/policies/acl/<name>. Tokens that have the policy obey it at once.
func (st *store) writePolicy(req *request) reply {
	name, text := strings.ToLower(req.name), req.fields.text("policy")
	if text == "" {
		return refuse(http.StatusBadRequest, "'policy' parameter not supplied or empty")
	}
	rules, err := parseRules(text)
	switch {
	case err != nil:
		return refuse(http.StatusBadRequest, "failed to parse policy: "+err.Error())
	case name == "root":
		return refuse(http.StatusBadRequest, `cannot update "root" policy`)
	}
	st.policies[name] = policy{rules: rules, text: text}
	if name != req.name {
		return reply{warnings: []string{"policy name was converted to " + name}, mount: "system"}
	}
	return reply{}
}
