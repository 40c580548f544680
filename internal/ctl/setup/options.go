// SPDX-License-Identifier: Apache-2.0

// Package setup prepares Vault for Trousseau: it reads the current state, plans the
// missing steps, refuses harmful ones, and applies the plan.
package setup

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"github.com/trousseau-io/trousseau/internal/config"
	"github.com/trousseau-io/trousseau/internal/ctl/vaultadmin"
)

// Options are the names and addresses of the setup. [Defaults] are those of the
// documentation.
type Options struct {
	// TransitMount is the path of the transit engine.
	TransitMount string
	// Namespace is that of the transit engine, relative to that of the policy; "" if they
	// are the same. Only [Options.PolicyText] uses it.
	Namespace string
	// Keys are transit keys. The first encrypts; the others only decrypt.
	Keys []string

	// Policy is the name of Trousseau's policy, AgentPolicy that of the Vault Agent.
	Policy, AgentPolicy string

	// KVMount and KVPath are the path of the secret that the agent renders.
	KVMount, KVPath string
	// PluginAddress is the URL at which Trousseau reaches Vault.
	PluginAddress string
	// Period is the renewal period of Trousseau's token, in Vault's format.
	Period string

	// Login means that Trousseau logs in itself: no KV secret, no token, no agent.
	Login bool

	// WithoutKubernetes leaves the auth method and its role out.
	WithoutKubernetes bool
	// AuthMount is the path of the Kubernetes auth method, without auth/.
	AuthMount string
	// Role is the name of the auth method's role.
	Role string
	// ServiceAccount and ServiceAccountNamespace are bound to the role.
	ServiceAccount, ServiceAccountNamespace string
	// KubernetesHost is the URL at which Vault reaches the API server.
	KubernetesHost string
	// KubernetesCAFile is the PEM file with the API server's CA, KubernetesCA its
	// content.
	KubernetesCAFile, KubernetesCA string

	// Remove names what may be taken away: paths of the policies, and values of the
	// role's lists, each as FIELD=VALUE.
	Remove []string
}

// Defaults are the documented names.
func Defaults() Options {
	return Options{
		TransitMount: "transit", Keys: []string{"trousseau-kms-vault"},
		Policy: "trousseau", AgentPolicy: "trousseau-agent",
		KVMount: "secret", KVPath: "trousseau/config", Period: "768h",
		AuthMount: "kubernetes", Role: "trousseau",
		ServiceAccount: "trousseau", ServiceAccountNamespace: "kube-system",
	}
}

// clusterName matches a name that is valid in all derived names. Vault writes the names
// of policies in lower case.
var clusterName = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$`)

// ForCluster returns names for one of several clusters on a Vault, by the names of the
// flags. No two clusters share one, nor does a cluster with the default names.
func ForCluster(cluster string) (map[string]string, error) {
	switch {
	case !clusterName.MatchString(cluster):
		return nil, fmt.Errorf("--cluster: %q is not a valid name: use lower-case letters, digits, dots, hyphens and underscores", cluster)
	case cluster == "agent" || strings.HasPrefix(cluster, "agent-"):
		return nil, fmt.Errorf("--cluster: %q: a name must not begin with agent, as do the names of agents' policies", cluster)
	}
	d, suffix := Defaults(), "-"+cluster
	return map[string]string{
		"key": d.Keys[0] + suffix, "policy": d.Policy + suffix, "agent-policy": d.AgentPolicy + suffix,
		"kv-path": d.KVPath + suffix, "auth-mount": d.AuthMount + suffix, "role": d.Role + suffix,
	}, nil
}

// Vault is the part of [*vaultadmin.Client] that a setup uses.
type Vault interface {
	Read(ctx context.Context, path string) (map[string]any, error)
	Write(ctx context.Context, path string, body map[string]any) (map[string]any, error)
	CreateToken(ctx context.Context, o vaultadmin.TokenOptions) (vaultadmin.Token, error)
	Lookup(ctx context.Context, token string) (vaultadmin.Info, error)
	Revoke(ctx context.Context, accessor string) error
}

// name matches a name without special characters in paths and policies, where * and
// + are wildcards.
var name = regexp.MustCompile(`^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*$`)

// Validate returns the first mistake, and brings PluginAddress into the form that the
// daemon keeps. The error begins with the flag's name, and holds no password.
func (o *Options) Validate() (err error) {
	if len(o.Keys) == 0 {
		return errors.New("--key is missing: name a transit key, such as trousseau-kms-vault")
	}
	type value struct{ flag, field, value string }
	values := []value{
		{"--transit-mount", "transitPath", o.TransitMount}, {"--policy", "", o.Policy}, {"--agent-policy", "", o.AgentPolicy},
		{"--kv-mount", "", o.KVMount}, {"--kv-path", "", o.KVPath}, {"--auth-mount", "authPath", o.AuthMount}, {"--role", "", o.Role},
		{"--service-account", "", o.ServiceAccount}, {"--service-account-namespace", "", o.ServiceAccountNamespace},
	}
	if namespace := strings.Trim(o.Namespace, "/"); namespace != "" {
		values = append(values, value{"--namespace", "namespace", namespace})
	}
	for _, key := range o.Keys {
		values = append(values, value{"--key", "keynames", key})
	}
	for _, v := range values {
		if v.field != "" {
			if _, err := config.Check(v.field, v.value); err != nil {
				return fmt.Errorf("%s: %w", v.flag, err)
			}
		}
		if !name.MatchString(v.value) {
			return fmt.Errorf("%s: %q is not a valid name: use letters, digits, dots, hyphens and underscores, separated by slashes", v.flag, v.value)
		}
	}
	for flag, policy := range map[string]string{"--policy": o.Policy, "--agent-policy": o.AgentPolicy} {
		if policy != strings.ToLower(policy) {
			return fmt.Errorf("%s: %q: Vault writes the names of policies in lower case", flag, policy)
		}
	}
	if o.Policy == o.AgentPolicy {
		return fmt.Errorf("--agent-policy: %q is Trousseau's own policy: give another name, because the agent must not be able to use the key", o.AgentPolicy)
	}
	if o.PluginAddress != "" {
		if o.PluginAddress, err = config.Check("address", o.PluginAddress); err != nil {
			return fmt.Errorf("--plugin-address: %w", err)
		}
	}
	if o.WithoutKubernetes {
		return nil
	}
	// Unlike Vault's address, this one may have a path.
	if u, err := url.Parse(o.KubernetesHost); err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil {
		return errors.New("--kubernetes-host: give the https:// URL at which Vault reaches the API server, without a user, or --without-kubernetes")
	}
	if !strings.Contains(o.KubernetesCA, "-----BEGIN CERTIFICATE-----") {
		return errors.New("--kubernetes-ca: give the PEM file with the API server's CA, such as /etc/kubernetes/pki/ca.crt, or --without-kubernetes")
	}
	return nil
}
