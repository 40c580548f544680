// SPDX-License-Identifier: Apache-2.0

package vaulttest

import (
	"encoding/pem"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// cluster is the configuration of a Kubernetes auth method for its API server. It is immutable.
type cluster struct {
	host         string
	ca           string // PEM
	reviewer     string // token_reviewer_jwt
	pemKeys      []string
	issuer       string
	anyIssuer    bool // disable_iss_validation
	notLocal     bool // disable_local_ca_jwt
	byAnnotation bool // use_annotations_as_alias_metadata
}

// kubernetesOp determines the operation of a request to a Kubernetes auth method.
func kubernetesOp(method, rest string) (op, name string) {
	role, isRole := strings.CutPrefix(rest, "role/")
	switch {
	case rest == "config" && method == http.MethodGet:
		return OpReadAuthConfig, rest
	case rest == "config" && method == http.MethodPost:
		return OpWriteAuthConfig, rest
	case isRole && method == http.MethodGet:
		return OpReadRole, role
	case isRole && method == http.MethodPost:
		return OpWriteRole, role
	case isRole || rest == "config":
		return OpOther, rest
	}
	return OpOther, ""
}

func (m *authMount) kubernetes(req *request) reply {
	switch req.op {
	case OpReadAuthConfig:
		return m.readCluster()
	case OpWriteAuthConfig:
		return m.writeCluster(req.fields)
	case OpReadRole:
		return m.readRole(req.name)
	default:
		return m.writeRole(req)
	}
}

func (m *authMount) readCluster() reply {
	c := m.cluster
	if c == nil {
		return refuse(http.StatusNotFound)
	}
	return reply{mount: m.kind, data: map[string]any{
		"kubernetes_host":                   c.host,
		"kubernetes_ca_cert":                c.ca,
		"token_reviewer_jwt_set":            c.reviewer != "",
		"pem_keys":                          append([]string{}, c.pemKeys...),
		"issuer":                            c.issuer,
		"disable_iss_validation":            c.anyIssuer,
		"disable_local_ca_jwt":              c.notLocal,
		"use_annotations_as_alias_metadata": c.byAnnotation,
	}}
}

// writeCluster replaces the whole configuration, including fields absent from the request
// (vault-plugin-auth-kubernetes, path_config.go).
func (m *authMount) writeCluster(f *fields) reply {
	c := &cluster{
		host: f.text("kubernetes_host"), ca: f.text("kubernetes_ca_cert"), reviewer: f.text("token_reviewer_jwt"),
		pemKeys: f.list("pem_keys"), issuer: f.text("issuer"), anyIssuer: f.flag("disable_iss_validation", true),
		notLocal: f.flag("disable_local_ca_jwt", false), byAnnotation: f.flag("use_annotations_as_alias_metadata", false),
	}
	noPEM := func(text string) bool {
		block, _ := pem.Decode([]byte(text))
		return block == nil
	}
	switch {
	case f.mistake != "":
		return reply{}
	case c.host == "":
		return refuse(http.StatusBadRequest, "no host provided")
	case c.ca != "" && noPEM(c.ca):
		return refuse(http.StatusBadRequest, "The provided CA PEM data contains no valid certificates")
	case slices.ContainsFunc(c.pemKeys, noPEM):
		return refuse(http.StatusBadRequest, "data does not contain any valid RSA or ECDSA public keys")
	case c.ca == "" && !c.notLocal:
		// This fake does not run in a pod.
		return refuse(http.StatusBadRequest, "open /var/run/secrets/kubernetes.io/serviceaccount/ca.crt: no such file or directory")
	}
	m.cluster = c
	return reply{}
}

// bound holds the service accounts and audience that a role of a Kubernetes auth method accepts.
type bound struct {
	names      []string
	namespaces []string
	audience   string
}

// admits reports whether a role's list contains a name or "*".
func admits(list []string, name string) bool {
	return slices.Contains(list, name) || slices.Contains(list, "*")
}

func (m *authMount) readRole(name string) reply {
	r := m.roles[name]
	if r == nil {
		return refuse(http.StatusNotFound)
	}
	kind := r.token.Type
	if kind == "" {
		kind = "default"
	}
	data := map[string]any{
		"alias_name_source":                        "serviceaccount_uid",
		"bound_service_account_names":              r.bound.names,
		"bound_service_account_namespaces":         r.bound.namespaces,
		"bound_service_account_namespace_selector": "",
		"token_bound_cidrs":                        []string{},
		"token_explicit_max_ttl":                   seconds(r.token.ExplicitMaxTTL),
		"token_max_ttl":                            seconds(r.token.MaxTTL),
		"token_no_default_policy":                  r.token.NoDefaultPolicy,
		"token_num_uses":                           r.token.NumUses,
		"token_period":                             seconds(r.token.Period),
		"token_policies":                           append([]string{}, r.token.Policies...),
		"token_ttl":                                seconds(r.token.TTL),
		"token_type":                               kind,
	}
	if r.bound.audience != "" {
		data["audience"] = r.bound.audience
	}
	return reply{data: data, mount: m.kind}
}

// writeRole changes only the fields in the request (vault-plugin-auth-kubernetes, path_role.go).
func (m *authMount) writeRole(req *request) reply {
	f, r := req.fields, role{name: req.name}
	if old := m.roles[req.name]; old != nil {
		r = *old
	}
	for name, list := range map[string]*[]string{
		"token_policies": &r.token.Policies, "bound_service_account_names": &r.bound.names,
		"bound_service_account_namespaces": &r.bound.namespaces,
	} {
		if f.has(name) {
			*list = f.list(name)
		}
	}
	for name, d := range map[string]*time.Duration{
		"token_ttl": &r.token.TTL, "token_max_ttl": &r.token.MaxTTL, "token_period": &r.token.Period,
		"token_explicit_max_ttl": &r.token.ExplicitMaxTTL,
	} {
		if f.has(name) {
			*d = f.duration(name)
		}
	}
	if f.has("audience") {
		r.bound.audience = f.text("audience")
	}
	if f.has("token_type") {
		r.token.Type = strings.TrimPrefix(f.text("token_type"), "default")
	}
	if f.has("token_num_uses") {
		r.token.NumUses = f.number("token_num_uses")
	}
	r.token.NoDefaultPolicy = f.flag("token_no_default_policy", r.token.NoDefaultPolicy)
	r.token.Orphan, r.token.Namespace = true, m.namespace
	if f.mistake != "" {
		return reply{}
	}
	if mistake := r.mistake(f); mistake != "" {
		return refuse(http.StatusBadRequest, mistake)
	}
	m.roles[req.name] = &r
	if r.bound.audience == "" {
		return reply{mount: m.kind, warnings: []string{"Role " + req.name + " does not have an audience configured. While audiences are not" +
			" required, consider specifying one if your use case would benefit from additional JWT claim verification."}}
	}
	return reply{}
}

// mistake returns Vault's error text for an invalid role, checked in Vault's order; empty if the role is valid.
func (r *role) mistake(f *fields) string {
	t, b := r.token, r.bound
	switch {
	case t.Type != "" && t.Type != Service && t.Type != Batch:
		return fmt.Sprintf("invalid 'token_type' value %q", t.Type)
	case t.Type == Batch && t.Period != 0:
		return "'token_type' cannot be 'batch' or 'default_batch' when set to generate periodic tokens"
	case t.Type == Batch && t.NumUses != 0:
		return "'token_type' cannot be 'batch' or 'default_batch' when set to generate tokens with limited use count"
	case t.MaxTTL > 0 && t.TTL > t.MaxTTL:
		return "'token_ttl' cannot be greater than 'token_max_ttl'"
	case t.Period > systemTTL:
		return fmt.Sprintf("token period of '%q' is greater than the backend's maximum lease TTL of '%q'", t.Period, systemTTL)
	case len(b.names) == 0:
		return `"bound_service_account_names" can not be empty`
	case f.has("bound_service_account_namespace_selector") || f.has("alias_name_source"):
		return "bound_service_account_namespace_selector and alias_name_source are not supported by this fake"
	case len(b.namespaces) == 0:
		return `"bound_service_account_namespaces" can not be empty if "bound_service_account_namespace_selector" is not set`
	case len(b.names) > 1 && slices.Contains(b.names, "*"), len(b.namespaces) > 1 && slices.Contains(b.namespaces, "*"):
		return `can not mix "*" with values`
	}
	return ""
}
