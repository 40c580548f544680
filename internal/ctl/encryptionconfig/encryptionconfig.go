// SPDX-License-Identifier: Apache-2.0

// Package encryptionconfig writes and edits kube-apiserver's
// EncryptionConfiguration, the file that says which providers encrypt which
// resources in etcd.
//
// It adds one provider, a KMS v2 plugin, and changes nothing else: it splices text
// into the file, then parses the result and compares it with the intended one. It
// refuses what kube-apiserver would refuse, by the rules of k8s.io/apiserver v0.37
// (cited at each), and edits that would make data in etcd unreadable.
package encryptionconfig

import (
	"fmt"
	"slices"
	"time"

	"github.com/trousseau-io/trousseau/internal/endpoint"
)

// Phase is a step in the introduction of the plugin.
type Phase string

// The phases, in order. With several API servers, all must be able to read what the
// plugin encrypts before the first one writes with it.
const (
	// Read puts the plugin second, after the provider that writes now.
	Read Phase = "read"
	// Write puts the plugin first.
	Write Phase = "write"
)

// DefaultTimeout is the timeout of a provider without one in the file
// (SetDefaults_KMSConfiguration in pkg/apis/apiserver/v1/defaults.go).
const DefaultTimeout = 3 * time.Second

// Options describe the plugin to add.
type Options struct {
	// Resources are the resources to encrypt, such as secrets, pods.metrics.k8s.io or
	// *.*.
	Resources []string
	// Name is the provider's name. It becomes part of every value in etcd.
	Name string
	// Endpoint is where the plugin listens.
	Endpoint endpoint.Endpoint
	// Timeout is the time limit for one call; 0 means DefaultTimeout for a new
	// provider, and the present value for an existing one.
	Timeout time.Duration
	// Phase is the step to take.
	Phase Phase
}

// Result is a configuration with the plugin in it.
type Result struct {
	// Text is the file.
	Text []byte
	// Changed is false if the file already was as requested.
	Changed bool
	// Phase is that of the options.
	Phase Phase
	// Index is the index of the plugin's entry in the list resources.
	Index int
	// Entry is the entry at Index.
	Entry Entry
	// Added is the name of the provider.
	Added string
	// Notes are warnings about the configuration.
	Notes []string
}

// New returns a new configuration for resources that are in plaintext: the plugin, and
// identity to read the plaintext.
func New(o Options) (Result, error) {
	if err := o.check(); err != nil {
		return Result{}, err
	}
	text := "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n" +
		lines(entryLines(o), "\n")
	d, err := parse([]byte(text))
	if err != nil {
		return Result{}, err
	}
	return result(d, o, 0, true), nil
}

// Edit adds the plugin to the configuration in text. Everything else stays unchanged,
// comments included. It is idempotent.
//
// The error is an [*InvalidError] if kube-apiserver would not accept text either, and
// a [*RefusedError] if the edit would make data unreadable.
func Edit(text []byte, o Options) (Result, error) {
	if err := o.check(); err != nil {
		return Result{}, err
	}
	before, err := parse(text)
	if err != nil {
		return Result{}, err
	}
	c, err := before.config.plan(o)
	if err != nil {
		return Result{}, err
	}
	if c.kind == nothing {
		return result(before, o, c.entry, false), nil
	}
	after, err := before.apply(c, o)
	if err != nil {
		return Result{}, err
	}
	return result(after, o, c.entry, true), nil
}

func result(d *document, o Options, index int, changed bool) Result {
	return Result{
		Text: d.text, Changed: changed, Phase: o.Phase, Index: index, Entry: d.config.Entries[index],
		Added: o.Name, Notes: notes(d.config, index, o.Name),
	}
}

// notes returns warnings about a valid configuration.
func notes(c Configuration, index int, name string) []string {
	var all []string
	// SetDefaults_KMSConfiguration and kmsPrefixTransformer: without apiVersion
	// it is v1, which needs a feature gate since Kubernetes 1.29.
	for _, e := range c.Entries {
		for _, p := range e.Providers {
			if p.KMS != nil && p.KMS.APIVersion == "v1" {
				all = append(all, fmt.Sprintf("%s: kube-apiserver needs --feature-gates=KMSv1=true for it. Keep both until no value in etcd is encrypted by it.", p))
			}
		}
	}
	for _, p := range c.Entries[index].Providers {
		if p.KMS != nil && p.KMS.Name == name && p.KMS.Timeout <= daemonTimeout {
			all = append(all, fmt.Sprintf("The timeout of %s is not longer than trousseau's --request-timeout, %s by default, so kube-apiserver gives up before trousseau answers. Raise the timeout, or lower --request-timeout.", p.KMS.Timeout, daemonTimeout))
		}
	}
	return slices.Compact(all)
}

// daemonTimeout is the default of the daemon's --request-timeout.
const daemonTimeout = 2500 * time.Millisecond
