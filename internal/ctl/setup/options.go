// SPDX-License-Identifier: Apache-2.0

// Package setup prepares Vault for Trousseau: it reads the current state, plans the
// missing steps, refuses harmful ones, and applies the plan.
package setup

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/trousseau-io/trousseau/internal/ctl/vaultadmin"
)

// Options are the names and addresses of the setup. [Defaults] are those of the
// documentation.
type Options struct {
	// TransitMount is the path of the transit engine.
	TransitMount string
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

// Vault is the part of [*vaultadmin.Client] that a setup uses.
type Vault interface {
	Read(ctx context.Context, path string) (map[string]any, error)
	Write(ctx context.Context, path string, body map[string]any) (map[string]any, error)
	CreateToken(ctx context.Context, o vaultadmin.TokenOptions) (vaultadmin.Token, error)
	AccessorOf(ctx context.Context, token string) (string, error)
	Revoke(ctx context.Context, accessor string) error
}

// name matches a name without special characters in paths and policies, where * and
// + are wildcards.
var name = regexp.MustCompile(`^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*$`)

// Validate returns the first mistake. The error begins with the flag's name.
func (o Options) Validate() error {
	if len(o.Keys) == 0 {
		return errors.New("--key is missing: name a transit key, such as trousseau-kms-vault")
	}
	names := []struct{ flag, value string }{
		{"--transit-mount", o.TransitMount}, {"--policy", o.Policy}, {"--agent-policy", o.AgentPolicy},
		{"--kv-mount", o.KVMount}, {"--kv-path", o.KVPath}, {"--auth-mount", o.AuthMount}, {"--role", o.Role},
		{"--service-account", o.ServiceAccount}, {"--service-account-namespace", o.ServiceAccountNamespace},
	}
	for _, key := range o.Keys {
		names = append(names, struct{ flag, value string }{"--key", key})
	}
	for _, n := range names {
		if !name.MatchString(n.value) {
			return fmt.Errorf("%s: %q is not a valid name: use letters, digits, dots, hyphens and underscores, separated by slashes", n.flag, n.value)
		}
	}
	if o.Policy == o.AgentPolicy {
		return fmt.Errorf("--agent-policy: %q is Trousseau's own policy: give another name, because the agent must not be able to use the key", o.AgentPolicy)
	}
	if o.WithoutKubernetes {
		return nil
	}
	if !strings.HasPrefix(o.KubernetesHost, "https://") {
		return errors.New("--kubernetes-host: give the https:// URL at which Vault reaches the API server, or --without-kubernetes")
	}
	if !strings.Contains(o.KubernetesCA, "-----BEGIN CERTIFICATE-----") {
		return errors.New("--kubernetes-ca: give the PEM file with the API server's CA, such as /etc/kubernetes/pki/ca.crt, or --without-kubernetes")
	}
	return nil
}
