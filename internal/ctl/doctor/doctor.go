// SPDX-License-Identifier: Apache-2.0

// Package doctor looks for every reason why Trousseau might not work on a node:
// its configuration, Vault and the way there, the token and what it may do, the
// key, the socket, kube-apiserver's EncryptionConfiguration and kube-apiserver
// itself, and whether the nodes agree.
//
// It changes nothing. Where the configuration logs in to Vault it logs in as
// well, and gives the token back.
package doctor

import (
	"context"
	"time"

	"github.com/trousseau-io/trousseau/internal/ctl/fleet"
)

// DefaultTimeout bounds an examination that does not say how long it may take.
const DefaultTimeout = 30 * time.Second

// Options say what to look at. What is empty is left out.
type Options struct {
	// Config is the path of config.yaml. It is always looked at.
	Config string
	// Socket is where the plugin listens: unix:// and an absolute path.
	Socket string
	// RequestTimeout is the daemon's --request-timeout; 0 means its default.
	RequestTimeout time.Duration
	// Nodes are the operator's pages to ask.
	Nodes []fleet.Node
	// EncryptionConfig is the file that kube-apiserver's
	// --encryption-provider-config names.
	EncryptionConfig string
	// Kubeconfig is the path of credentials for kube-apiserver.
	Kubeconfig string
	// Timeout bounds the whole; 0 means DefaultTimeout.
	Timeout time.Duration
}

// defaultRequestTimeout is that of the daemon's flag.
const defaultRequestTimeout = 2500 * time.Millisecond

// behindConfig are the checks that no configuration leaves without a subject.
var behindConfig = []string{
	"vault-dns", "vault-tcp", "vault-tls", "vault-health", "vault-clock", "login", "token", "token-life", "token-policies",
	"policy", "policy-needs", "policy-excess", "key", "key-settings", "key-versions", "round-trip",
}

// Run examines, in the order in which things depend on each other. It returns by
// the timeout, or as soon as ctx is done.
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
	e.pages(ctx)
	e.apiServer(ctx)
	e.giveBack()
	return e.report()
}
