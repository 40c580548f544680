// SPDX-License-Identifier: Apache-2.0

package vaulttest

import (
	"encoding/pem"
	"net/http"
	"slices"
	"strings"
)

// cluster is what a Kubernetes auth method knows of its API server. It is immutable.
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

// kubernetesOp tells what a request to a Kubernetes auth method wants.
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

// writeCluster replaces all of it, whatever the request names (vault-plugin-auth-kubernetes, path_config.go).
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
		// This Vault does not run in a pod.
		return refuse(http.StatusBadRequest, "open /var/run/secrets/kubernetes.io/serviceaccount/ca.crt: no such file or directory")
	}
	m.cluster = c
	return reply{}
}
