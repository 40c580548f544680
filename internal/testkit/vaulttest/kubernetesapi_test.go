// SPDX-License-Identifier: Apache-2.0

package vaulttest_test

import (
	"fmt"
	"testing"

	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

func TestKubernetesConfig(t *testing.T) {
	const ca = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
	const path = "auth/kubernetes/config"
	s := vaulttest.Start(t, vaulttest.Options{})
	s.EnableKubernetes("", "kubernetes")
	root := newCaller(t, s, s.RootToken())
	root.want(404, "GET", path, nil)
	root.want(204, "POST", path, fields{"kubernetes_host": "https://h:6443", "kubernetes_ca_cert": ca, "token_reviewer_jwt": "reviewer.jwt.x"})
	if _, found := s.Leak("a reviewer.jwt.x"); !found {
		t.Error("the reviewer's JWT is no secret")
	}
	check := func(want fields) {
		t.Helper()
		data := root.want(200, "GET", path, nil).Data
		for field, want := range want {
			if got := data[field]; got != want {
				t.Errorf("%s: got %v, want %v", field, got, want)
			}
		}
	}
	check(fields{"kubernetes_host": "https://h:6443", "kubernetes_ca_cert": ca, "token_reviewer_jwt_set": true, "disable_local_ca_jwt": false})
	before := s.Snapshot()
	root.want(204, "POST", path, fields{"kubernetes_host": "https://other", "disable_local_ca_jwt": true})
	check(fields{"kubernetes_host": "https://other", "kubernetes_ca_cert": "", "token_reviewer_jwt_set": false, "disable_local_ca_jwt": true})
	for want, body := range map[string]fields{
		"no host provided": {"kubernetes_ca_cert": ca},
		"The provided CA PEM data contains no valid certificates":                              {"kubernetes_host": "h", "kubernetes_ca_cert": "x"},
		"data does not contain any valid RSA or ECDSA public keys":                             {"kubernetes_host": "h", "pem_keys": "x"},
		"open /var/run/secrets/kubernetes.io/serviceaccount/ca.crt: no such file or directory": {"kubernetes_host": "h"},
	} {
		root.want(400, "POST", path, body, want)
	}
	check(fields{"kubernetes_host": "https://other"})
	s.Restore(before)
	check(fields{"kubernetes_host": "https://h:6443"})
	root.want(405, "DELETE", path, nil)
}

func TestKubernetesRole(t *testing.T) {
	const path = "auth/kubernetes/role/kms"
	s := vaulttest.Start(t)
	jwt := s.EnableKubernetes("", "kubernetes").NewJWT("kms")
	s.SetPolicy("kms", vaulttest.Rules{"auth/token/lookup-self": {"read"}})
	s.SetPolicy("create", vaulttest.Rules{"auth/kubernetes/role/*": {"create"}})
	root := newCaller(t, s, s.RootToken())
	root.want(404, "GET", path, nil)
	login := func(status int, errors ...string) *answer {
		t.Helper()
		return newCaller(t, s, "").want(status, "POST", "auth/kubernetes/login", fields{"role": "kms", "jwt": jwt}, errors...)
	}
	login(400, `invalid role name "kms"`)

	creator := newCaller(t, s, s.CreateToken(vaulttest.TokenOptions{Policies: []string{"create"}}).ID)
	role := fields{
		"bound_service_account_names": "trousseau", "bound_service_account_namespaces": "default, kube-system",
		"token_policies": []string{"kms"}, "token_ttl": "1h",
	}
	if a := creator.want(200, "POST", path, role); len(a.Warnings) != 1 || a.Data != nil {
		t.Errorf("without an audience: got warnings %q", a.Warnings)
	}
	creator.want(403, "POST", path, role, denied)
	if got := login(200).Auth; got["lease_duration"] != 3600.0 || fmt.Sprint(got["policies"]) != "[default kms]" {
		t.Errorf("a login yields %v", got)
	}

	// Only what is named changes.
	root.want(204, "POST", path, fields{"token_period": "24h", "audience": "vault"})
	data := root.want(200, "GET", path, nil).Data
	for field, want := range map[string]string{
		"bound_service_account_names": "[trousseau]", "bound_service_account_namespaces": "[default kube-system]", "audience": "vault",
		"token_policies": "[kms]", "token_ttl": "3600", "token_period": "86400", "token_type": "default", "token_max_ttl": "0",
	} {
		if got := fmt.Sprint(data[field]); got != want {
			t.Errorf("%s: got %s, want %s", field, got, want)
		}
	}
	if got := login(200).Auth["lease_duration"]; got != 86400.0 {
		t.Errorf("a login yields a token for %v", got)
	}
	root.want(204, "POST", path, fields{"bound_service_account_namespaces": "default"})
	login(403, "namespace not authorized")
	root.want(204, "POST", path, fields{"bound_service_account_names": "another"})
	login(403, "service account name not authorized")

	for want, body := range map[string]fields{
		`"bound_service_account_names" can not be empty`:                                                               {"bound_service_account_names": ""},
		`"bound_service_account_namespaces" can not be empty if "bound_service_account_namespace_selector" is not set`: {"bound_service_account_namespaces": []string{}},
		`can not mix "*" with values`:                                                                          {"bound_service_account_names": "a,*"},
		"'token_ttl' cannot be greater than 'token_max_ttl'":                                                   {"token_max_ttl": 60},
		`token period of '"900h0m0s"' is greater than the backend's maximum lease TTL of '"768h0m0s"'`:         {"token_period": "900h"},
		"'token_type' cannot be 'batch' or 'default_batch' when set to generate periodic tokens":               {"token_type": "batch"},
		"'token_type' cannot be 'batch' or 'default_batch' when set to generate tokens with limited use count": {"token_type": "batch", "token_period": 0, "token_num_uses": 1},
		`invalid 'token_type' value "x"`:                                                                       {"token_type": "x"},
	} {
		root.want(400, "POST", path, body, want)
	}
	root.want(404, "GET", "auth/kubernetes/nothing", nil, "1 error occurred:\n\t* unsupported path\n\n")
	root.want(404, "POST", "auth/none/role/kms", role, `no handler for route "auth/none/role/kms". route entry not found.`)
}
