// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"context"
	"encoding/pem"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
)

// kubernetes plans the auth method, its configuration, and the role.
func (p *planner) kubernetes(ctx context.Context) error {
	o := p.options
	methods, err := p.mounts(ctx, "sys/auth")
	if err != nil {
		return err
	}
	what := "Kubernetes auth method at auth/" + o.AuthMount + "/"
	m, mounted := methods[o.AuthMount+"/"]
	switch {
	case !mounted:
		p.write(Create, what, nil, "vault auth enable -path="+quote(o.AuthMount)+" kubernetes",
			"sys/auth/"+o.AuthMount, map[string]any{"type": "kubernetes"})
	case m.kind != "kubernetes":
		return fmt.Errorf("the auth method at auth/%s/ is of type %s: name another path with --auth-mount", o.AuthMount, m.kind)
	default:
		p.keep(what)
	}
	if err := p.cluster(ctx, mounted); err != nil {
		return err
	}
	return p.role(ctx, mounted)
}

// cluster plans the configuration of the auth method: how it reaches the API server.
func (p *planner) cluster(ctx context.Context, mounted bool) error {
	o := p.options
	path := "auth/" + o.AuthMount + "/config"
	var found map[string]any
	if mounted {
		var err error
		if found, err = p.vault.Read(ctx, path); err != nil {
			return err
		}
	}
	host := text(found["kubernetes_host"])
	if host == "" {
		p.write(Create, path, []string{"kubernetes_host=" + o.KubernetesHost, "kubernetes_ca_cert=@" + o.KubernetesCAFile, "disable_local_ca_jwt=true"},
			fmt.Sprintf(`vault write %s \
  kubernetes_host=%s \
  kubernetes_ca_cert=@%s \
  disable_local_ca_jwt=true`, quote(path), quote(o.KubernetesHost), quote(o.KubernetesCAFile)), path, map[string]any{
				"kubernetes_host": o.KubernetesHost, "kubernetes_ca_cert": o.KubernetesCA, "disable_local_ca_jwt": true,
			})
		return nil
	}
	if strings.TrimRight(host, "/") != strings.TrimRight(o.KubernetesHost, "/") {
		if u, err := url.Parse(host); err == nil {
			host = u.Redacted()
		}
		return fmt.Errorf("%s is for the cluster at %s, whose clients could no longer log in: give --cluster or another --auth-mount, or --kubernetes-host=%s if it is the same cluster", path, host, host)
	}
	if !yes(found["disable_local_ca_jwt"]) {
		p.warn("reviews-as-vault", path, "disable_local_ca_jwt is false: a Vault in a pod reviews tokens as its own ServiceAccount, and trusts the CA of its own cluster",
			"if Trousseau cannot log in, set it to true, together with all the other fields")
	}
	ca := text(found["kubernetes_ca_cert"])
	missing := without(certificates(o.KubernetesCA), certificates(ca))
	if ca == "" {
		p.warn("no-ca", path, "kubernetes_ca_cert is empty, so Vault trusts other CAs",
			"if Trousseau cannot log in, set it to "+o.KubernetesCAFile+", together with all the other fields")
	}
	if ca == "" || len(missing) == 0 {
		p.keep(path, "kubernetes_host="+host)
		return nil
	}
	change := "kubernetes_ca_cert: adds those of " + o.KubernetesCAFile
	if yes(found["token_reviewer_jwt_set"]) {
		// A write replaces the whole configuration, and Vault does not show the JWT.
		return fmt.Errorf("%s needs a change (%s), which would delete its token_reviewer_jwt: run `vault write %s` with this field as well, or name another path with --auth-mount", path, change, path)
	}
	body, command := map[string]any{}, fmt.Sprintf("{ vault read -field=kubernetes_ca_cert %s; echo; cat %s; } |\n  vault write %s kubernetes_ca_cert=-", quote(path), quote(o.KubernetesCAFile), quote(path))
	for _, name := range slices.Sorted(maps.Keys(found)) {
		value := text(found[name])
		if list, isList := found[name].([]any); isList {
			value = strings.Join(texts(list), ",")
		}
		if name != "token_reviewer_jwt_set" && name != "kubernetes_ca_cert" && value != "" {
			body[name] = value
			command += " \\\n    " + name + "=" + quote(value)
		}
	}
	body["kubernetes_ca_cert"] = strings.TrimSpace(ca) + "\n" + strings.Join(missing, "")
	p.write(Change, path, []string{change}, command, path, body)
	return nil
}

// certificates returns the certificates of a PEM file, each in PEM.
func certificates(file string) (all []string) {
	for block, rest := pem.Decode([]byte(file)); block != nil; block, rest = pem.Decode(rest) {
		all = append(all, string(pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes})))
	}
	return all
}

// without returns what is in all, but not in these.
func without(all, these []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return slices.Contains(these, s) })
}

// takesFrom refuses to make one role that of the agent and of Trousseau itself, because
// the agent must not be able to use the key.
func (o Options) takesFrom(path string, policies []string) error {
	user, policy := "Trousseau itself", o.Policy
	if o.Login {
		user, policy = "the Vault Agent", o.AgentPolicy
	}
	if !slices.Contains(policies, policy) {
		return nil
	}
	return fmt.Errorf("role %s has policy %s, so it is the role of %s, and must not become that of both: give another --role, or delete this one if it is unused", path, policy, user)
}

// role plans the role, with which a ServiceAccount logs in.
func (p *planner) role(ctx context.Context, mounted bool) error {
	o := p.options
	path := "auth/" + o.AuthMount + "/role/" + o.Role
	what := "role " + path
	var found map[string]any
	if mounted {
		var err error
		if found, err = p.vault.Read(ctx, path); err != nil {
			return err
		}
	}
	if err := o.takesFrom(path, texts(found["token_policies"])); err != nil {
		return err
	}
	policy, ttl, lifetime := o.AgentPolicy, "token_ttl", "1h"
	if o.Login {
		policy, ttl, lifetime = o.Policy, "token_period", "24h"
	}
	var details []string
	command, body := "vault write "+quote(path), map[string]any{}
	set := func(name, value, detail string) {
		details = append(details, detail)
		command += " \\\n  " + name + "=" + quote(value)
		body[name] = value
	}
	for _, f := range []struct{ name, value string }{
		{"bound_service_account_names", o.ServiceAccount},
		{"bound_service_account_namespaces", o.ServiceAccountNamespace},
		{"token_policies", policy},
	} {
		p.list(what, f.name, f.value, texts(found[f.name]), set)
	}
	switch {
	case found == nil:
		set(ttl, lifetime, ttl+"="+lifetime)
		p.write(Create, what, details, command, path, body)
	case len(details) > 0:
		// A write changes only the fields in it (Vault's Kubernetes plugin, path_role.go).
		p.write(Change, what, details, command, path, body)
	default:
		p.keep(what)
	}
	return nil
}

// list adds a value to a list of the role, and takes away what --remove names.
func (p *planner) list(role, name, value string, has []string, set func(name, value, detail string)) {
	var all []string
	for _, v := range has {
		assignment := name + "=" + v
		if v != value && p.removes(assignment) {
			continue
		}
		if v != value {
			p.warn("role-admits-more", role, "it also has "+assignment, "if no client needs it, run this with --remove "+quote(assignment))
		}
		all = append(all, v)
	}
	if !slices.Contains(all, value) && !slices.Contains(all, "*") { // which admits all
		all = append(all, value)
	}
	if slices.Equal(all, has) {
		return
	}
	is, detail := strings.Join(all, ","), name+"="+value
	if len(has) > 0 {
		detail = fmt.Sprintf("%s: %s, was %s", name, is, strings.Join(has, ","))
	}
	set(name, is, detail)
}
