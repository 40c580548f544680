// SPDX-License-Identifier: Apache-2.0

// Package doctor checks everything that Trousseau depends on at a node: its
// configuration, the network to Vault, Vault itself, the token and its policy,
// the key, the socket, kube-apiserver's EncryptionConfiguration, kube-apiserver
// itself, and whether the nodes agree.
//
// It changes nothing. Where the configuration logs in to Vault it logs in too,
// through the daemon's own client, and revokes the token at the end.
package doctor

import (
	"context"
	"time"

	"github.com/trousseau-io/trousseau/internal/ctl/fleet"
)

// DefaultTimeout bounds [Run] if [Options] does not.
const DefaultTimeout = 30 * time.Second

// Options say what to check. An empty field leaves its checks out.
type Options struct {
	// Config is the path of config.yaml. It is always checked.
	Config string
	// Socket is where the plugin listens: unix:// and an absolute path.
	Socket string
	// RequestTimeout is the daemon's --request-timeout; 0 means its default.
	RequestTimeout time.Duration
	// Nodes are the ops endpoints to ask, if Find is nil or fails.
	Nodes []fleet.Node
	Find  func(context.Context) (fleet.Members, error)
	// EncryptionConfig is the path of kube-apiserver's
	// --encryption-provider-config.
	EncryptionConfig string
	// Kubeconfig is the path of credentials for kube-apiserver, Context the context in it;
	// "" for the current one.
	Kubeconfig, Context string
	// Timeout bounds all checks together; 0 means DefaultTimeout.
	Timeout time.Duration
}

// defaultRequestTimeout is that of the daemon's flag.
const defaultRequestTimeout = 2500 * time.Millisecond

// behindConfig are the checks of every configuration, skipped if there is none.
var behindConfig = []string{
	"vault-dns", "vault-tcp", "vault-tls", "vault-health", "vault-clock", "login", "token", "token-life", "token-policies", "token-networks",
	"policy", "policy-needs", "policy-excess", "key", "key-settings", "key-versions", "round-trip", "batches",
}

// Run makes the checks, each after those that it depends on. It returns by the
// timeout, or as soon as ctx is done.
func Run(ctx context.Context, o Options) Report {
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	if o.RequestTimeout == 0 {
		o.RequestTimeout = defaultRequestTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	e := &examination{Options: o, cause: map[string]string{}}
	e.configuration(ctx)
	if e.config != nil {
		e.network(ctx)
		e.account(ctx)
		e.keys(ctx)
	} else {
		for _, name := range behindConfig {
			e.check(ctx, name, "", nil, ground("config", e.Config))
		}
	}
	e.socket(ctx)
	e.encryption(ctx)
	e.nodes(ctx)
	e.apiServer(ctx)
	e.close()
	return report(e.checks)
}
