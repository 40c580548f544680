// SPDX-License-Identifier: Apache-2.0

// Package encryptionconfig writes and edits kube-apiserver's
// EncryptionConfiguration, the file that says which providers encrypt which
// resources in etcd.
//
// It adds one provider, a KMS v2 plugin, and touches nothing else: an edit is a
// splice into the text of the file, and what comes out is read again and
// compared with what was meant. It refuses what kube-apiserver would refuse, by
// rules that follow k8s.io/apiserver v0.37 (each is cited where it is), and what
// would make something unreadable that is in etcd.
package encryptionconfig

import (
	"fmt"
	"slices"
	"time"
)

// Phase says how far the plugin is to be taken into use.
type Phase string

// The phases, in their order. With several API servers, all have to be able to
// read what the first one writes, before it does.
const (
	// Read puts the plugin second, behind what writes now.
	Read Phase = "read"
	// Write puts the plugin first.
	Write Phase = "write"
)

// DefaultTimeout is the timeout of a provider that names none
// (SetDefaults_KMSConfiguration in pkg/apis/apiserver/v1/defaults.go).
const DefaultTimeout = 3 * time.Second

// Options are what is to be added.
type Options struct {
	// Resources are what the plugin has to encrypt, such as secrets, pods.metrics.k8s.io
	// or *.*.
	Resources []string
	// Name is the provider's. It becomes part of every value in etcd.
	Name string
	// Endpoint is where the plugin listens: unix:// and an absolute path.
	Endpoint string
	// Timeout is how long one call may take; 0 means DefaultTimeout for a new
	// provider and leaves that of an existing one.
	Timeout time.Duration
	// Phase is how far the plugin is taken into use.
	Phase Phase
}

// Result is a configuration with the plugin in it.
type Result struct {
	// Text is the file.
	Text []byte
	// Changed is false if the file that was given is all right as it is.
	Changed bool
	// Phase is what was asked for.
	Phase Phase
	// Index is the place in the configuration's resources that the plugin is
	// in, from 0.
	Index int
	// Entry is what stands there: its resources, and its providers, of which
	// the first writes and all read.
	Entry Entry
	// Added is the name of the provider.
	Added string
	// Notes are what somebody should know beside it.
	Notes []string
}

// New returns a configuration for what is not encrypted so far: the plugin, and
// identity to read what is in plaintext.
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

// Edit returns the configuration in text with the plugin in it. What is in text
// stays as it is, comments included. Done once more with the same options, it
// changes nothing.
//
// The error is an [*InvalidError] if kube-apiserver would not take text either,
// and a [*RefusedError] if the change would lock data out.
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

// notes are what is not wrong, and still worth a word.
func notes(c Configuration, index int, name string) []string {
	var all []string
	// SetDefaults_KMSConfiguration and kmsPrefixTransformer: without apiVersion
	// it is v1, which needs a feature gate since Kubernetes 1.29.
	for _, e := range c.Entries {
		for _, p := range e.Providers {
			if p.KMS != nil && p.KMS.APIVersion == "v1" {
				all = append(all, fmt.Sprintf("%s: kube-apiserver needs --feature-gates=KMSv1=true as long as it is there: keep both until nothing in etcd is under it.", p))
			}
		}
	}
	for _, p := range c.Entries[index].Providers {
		if p.KMS != nil && p.KMS.Name == name && p.KMS.Timeout <= daemonTimeout {
			all = append(all, fmt.Sprintf("The timeout of %s is not longer than trousseau's own --request-timeout, %s by default: raise the one or lower the other, or kube-apiserver gives up before it gets trousseau's answer.", p.KMS.Timeout, daemonTimeout))
		}
	}
	return slices.Compact(all)
}

// daemonTimeout is the default of the daemon's --request-timeout.
const daemonTimeout = 2500 * time.Millisecond
