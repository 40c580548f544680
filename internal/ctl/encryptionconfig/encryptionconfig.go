// SPDX-License-Identifier: Apache-2.0

// Package encryptionconfig writes and edits kube-apiserver's
// EncryptionConfiguration, the file that says which providers encrypt which
// resources in etcd.
//
// It adds one provider, a KMS v2 plugin, and changes nothing else: it splices text
// into the file, then loads the result and compares it with the intended one. It
// loads with the code of k8s.io/apiserver, so it refuses what kube-apiserver would
// refuse. It also refuses edits that would make data in etcd unreadable.
package encryptionconfig

import (
	"fmt"
	"time"

	"github.com/trousseau-io/trousseau/internal/ctl/finding"
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
	// Findings are warnings about the configuration.
	Findings []finding.Finding
}

// New returns a new configuration for resources that are in plaintext: the plugin, and
// identity to read the plaintext.
func New(o Options) (Result, error) {
	if err := o.check(); err != nil {
		return Result{}, err
	}
	d, err := parse(o.file())
	if err != nil {
		return Result{}, err
	}
	return result(d, o, change{kind: extend}), nil
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
	c, err := withoutKeys(before.loaded).plan(o)
	if err != nil {
		return Result{}, err
	}
	if c.kind == nothing {
		return result(before, o, c), nil
	}
	after, err := before.apply(c, o)
	if err != nil {
		return Result{}, err
	}
	return result(after, o, c), nil
}

func result(d *document, o Options, c change) Result {
	all := withoutKeys(d.loaded)
	return Result{
		Text: d.text, Changed: c.kind != nothing, Phase: o.Phase, Index: c.entry, Entry: all.Entries[c.entry],
		Added: o.Name, Findings: risks(all, c, o),
	}
}

// risks returns warnings about a valid configuration.
func risks(all Configuration, c change, o Options) (found []finding.Finding) {
	warn := func(id, subject, do, format string, args ...any) {
		found = append(found, finding.Finding{ID: id, Severity: finding.Warning, Subject: subject, Text: fmt.Sprintf(format, args...), Do: do})
	}
	if o.Phase == Write && (c.kind == insert || c.kind == extend) {
		warn("not-read-before", o.Name, "With several API servers, use --phase read first, and --phase write when all of them have loaded that file.",
			"Until now this file did not name the plugin: an API server that has not loaded it cannot read what the others write.")
	}
	for i, e := range all.Entries {
		for _, r := range e.Resources {
			if problem := withoutGroup(r); problem != "" {
				warn("resource-without-group", r, "", "resources[%d]: %s. As it is, it encrypts nothing.", i, problem)
			}
		}
		for _, p := range e.Providers {
			// SetDefaults_KMSConfiguration and kmsPrefixTransformer: without apiVersion
			// it is v1, which needs a feature gate since Kubernetes 1.29.
			if p.KMS != nil && p.KMS.APIVersion == "v1" {
				warn("kms-v1", p.KMS.Name, "Keep both until no value in etcd is encrypted by it.", "%s: kube-apiserver needs --feature-gates=KMSv1=true for it.", p)
			}
		}
	}
	for _, p := range all.Entries[c.entry].Providers {
		if p.KMS != nil && p.KMS.Name == o.Name && p.KMS.Timeout <= daemonTimeout {
			warn("timeout-short", o.Name, "Raise the timeout, or lower --request-timeout.",
				"The timeout of %s is not longer than trousseau's --request-timeout, %s by default, so kube-apiserver gives up before trousseau answers.", p.KMS.Timeout, daemonTimeout)
		}
	}
	return found
}

// daemonTimeout is the default of the daemon's --request-timeout.
const daemonTimeout = 2500 * time.Millisecond
