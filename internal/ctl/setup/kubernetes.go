// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
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
	add := func(action Action, details ...string) {
		p.write(action, path, details, fmt.Sprintf(`vault write %s \
  kubernetes_host=%s \
  kubernetes_ca_cert=@%s \
  disable_local_ca_jwt=true`, quote(path), quote(o.KubernetesHost), quote(o.KubernetesCAFile)), path, map[string]any{
			"kubernetes_host": o.KubernetesHost, "kubernetes_ca_cert": o.KubernetesCA, "disable_local_ca_jwt": true,
		})
	}
	if found == nil || host == "" {
		add(Create, "kubernetes_host="+o.KubernetesHost, "kubernetes_ca_cert=@"+o.KubernetesCAFile, "disable_local_ca_jwt=true")
		return nil
	}
	if strings.TrimRight(host, "/") != strings.TrimRight(o.KubernetesHost, "/") {
		return fmt.Errorf("%s is for the cluster at %s, whose clients could no longer log in: name another path with --auth-mount, or give --kubernetes-host=%s if it is the same cluster", path, host, host)
	}
	var changes []string
	if strings.TrimSpace(text(found["kubernetes_ca_cert"])) != strings.TrimSpace(o.KubernetesCA) {
		changes = append(changes, "kubernetes_ca_cert: replaced by "+o.KubernetesCAFile)
	}
	if !yes(found["disable_local_ca_jwt"]) {
		changes = append(changes, "disable_local_ca_jwt: true, was false")
	}
	switch {
	case len(changes) == 0:
		p.keep(path, "kubernetes_host="+host)
	case yes(found["token_reviewer_jwt_set"]) || len(texts(found["pem_keys"])) > 0:
		// A write replaces the whole configuration, and Vault does not show the JWT.
		return fmt.Errorf("%s needs a change (%s), which would delete its token_reviewer_jwt or pem_keys: run `vault write %s` with these fields as well, or name another path with --auth-mount", path, strings.Join(changes, "; "), path)
	default:
		add(Change, changes...)
	}
	return nil
}

// field is a field of a role.
type field struct {
	name  string
	value string // as for the vault command
	list  bool
}

// roleFields returns the fields that the role must have. Its other fields stay: a
// write changes only the fields in it (Vault's Kubernetes plugin, path_role.go).
func (o Options) roleFields() []field {
	fields := []field{
		{"bound_service_account_names", o.ServiceAccount, true},
		{"bound_service_account_namespaces", o.ServiceAccountNamespace, true},
	}
	if o.Login {
		return append(fields, field{"token_policies", o.Policy, true}, field{"token_period", "24h", false})
	}
	return append(fields, field{"token_policies", o.AgentPolicy, true}, field{"token_ttl", "1h", false})
}

// as returns Vault's value in the form of f.value, because Vault returns seconds.
func (f field) as(found any) string {
	if f.list {
		return strings.Join(texts(found), ",")
	}
	var seconds int64
	if _, err := fmt.Sscan(text(found), &seconds); err != nil {
		return text(found)
	}
	if want, err := time.ParseDuration(f.value); err == nil && want == time.Duration(seconds)*time.Second {
		return f.value
	}
	return fmt.Sprintf("%ds", seconds)
}

// takesFrom refuses to turn a role of the agent into one of Trousseau itself or the
// reverse: its current user would lose access at the next login.
func (o Options) takesFrom(path string, policies []string) error {
	user, policy, what := "Trousseau itself", o.Policy, "use the key"
	if o.Login {
		user, policy, what = "the Vault Agent", o.AgentPolicy, "read the secret"
	}
	if !slices.Contains(policies, policy) {
		return nil
	}
	return fmt.Errorf("role %s has policy %s, so it is the role of %s, which could no longer %s: give another --role, or delete this one if it is unused", path, policy, user, what)
}

// role plans the role, with which a ServiceAccount logs in.
func (p *planner) role(ctx context.Context, mounted bool) error {
	o := p.options
	path := "auth/" + o.AuthMount + "/role/" + o.Role
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
	var all, changes []string
	command, body := "vault write "+quote(path), map[string]any{}
	for _, f := range o.roleFields() {
		all = append(all, f.name+"="+f.value)
		command += " \\\n  " + f.name + "=" + quote(f.value)
		body[f.name] = f.value
		if was := f.as(found[f.name]); was != f.value {
			changes = append(changes, fmt.Sprintf("%s: %s, was %s", f.name, f.value, was))
		}
	}
	// Left from --login: the period would override the TTL.
	if stale := "token_period"; !o.Login && found != nil && !slices.Contains([]string{"", "0"}, text(found[stale])) {
		changes = append(changes, stale+": 0, was "+text(found[stale])+"s")
		command += " \\\n  " + stale + "=0"
		body[stale] = "0"
	}
	switch {
	case found == nil:
		p.write(Create, "role "+path, all, command, path, body)
	case len(changes) > 0:
		p.write(Change, "role "+path, changes, command, path, body)
	default:
		p.keep("role " + path)
	}
	return nil
}
