// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/trousseau-io/trousseau/internal/ctl/encryptionconfig"
	"github.com/trousseau-io/trousseau/internal/ctl/text"
	"github.com/trousseau-io/trousseau/internal/endpoint"
)

// entryOf is an item of an EncryptionConfiguration that lists our plugin.
type entryOf struct {
	first bool                    // it writes: our plugin is the first of the providers
	kms   []*encryptionconfig.KMS // the providers that are our plugin: while one is renamed, two
	encryptionconfig.Entry
}

func (o entryOf) resources() string { return strings.Join(o.Resources, ", ") }

// encryption checks kube-apiserver's EncryptionConfiguration.
func (e *examination) encryption(ctx context.Context) {
	file := e.EncryptionConfig
	if file == "" {
		return
	}
	var c encryptionconfig.Configuration
	e.check(ctx, "encryption-config", file, func(context.Context) outcome {
		data, err := os.ReadFile(file)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return fail("Create one with trousseauctl encryption-config, and give it to kube-apiserver with --encryption-provider-config.", "the file does not exist")
		case err != nil:
			return fail("Run doctor as the user that kube-apiserver runs as.", "%s", reason(err))
		}
		if c, err = encryptionconfig.Parse(data); err != nil {
			return fail("Correct each of these: kube-apiserver refuses the file.", "%s", strings.ReplaceAll(err.Error(), "\n", "; "))
		}
		return ok("kube-apiserver can load it; %s", text.Count(len(c.Entries), "item"))
	})
	var ours []entryOf
	e.check(ctx, "encryption-provider", file, func(context.Context) outcome {
		var o outcome
		ours, o = e.providers(c)
		return o
	}, ground("encryption-config", file))
	built := ground("encryption-provider", file)
	e.check(ctx, "encryption-order", file, func(context.Context) outcome { return order(ours) }, built)
	e.check(ctx, "encryption-timeout", file, func(context.Context) outcome { return e.timeouts(ours) }, built)
	e.check(ctx, "encryption-identity", file, func(context.Context) outcome { return identity(ours) }, built)
}

// providers finds our plugin by its endpoint, and returns the items that list it.
func (e *examination) providers(c encryptionconfig.Configuration) (ours []entryOf, o outcome) {
	const add = "Add it: trousseauctl encryption-config FILE --phase read, and later --phase write."
	var others []string
	socket, _ := endpoint.Parse(e.Socket)
	for _, entry := range c.Entries {
		o := entryOf{Entry: entry}
		for j, p := range entry.Providers {
			switch {
			case p.KMS == nil:
			case !p.KMS.ListensAt(socket) && !sameFile(p.KMS.Endpoint, socket):
				others = append(others, fmt.Sprintf("%q at %s", p.KMS.Name, p.KMS.Endpoint))
			case p.KMS.APIVersion != "v2" && j > 0: // it reads, with --serve-v1-decrypt
			case p.KMS.APIVersion != "v2":
				return nil, fail("Put a provider with apiVersion: v2 and another name first. Keep this one as long as the audit finds something under it.",
					"the provider %q writes with kms %s, for which trousseau only decrypts", p.KMS.Name, p.KMS.APIVersion)
			default:
				o.first = o.first || j == 0
				o.kms = append(o.kms, p.KMS)
				e.names = append(e.names, p.KMS.Name)
			}
		}
		if o.kms != nil {
			ours = append(ours, o)
		}
	}
	switch {
	case len(ours) == 0 && len(others) > 0:
		return nil, fail("Write endpoint: "+e.Socket+", or give the endpoint in the file to trousseau as --listen-addr and to doctor as --socket.", "no kms provider has the endpoint %s; there is %s", e.Socket, strings.Join(others, ", "))
	case len(ours) == 0:
		return nil, fail(add, "there is no kms provider")
	}
	slices.Sort(e.names)
	e.names = slices.Compact(e.names)
	return ours, ok("kms v2 %s at %s", strings.Join(e.names, ", "), e.Socket)
}

// sameFile reports whether an endpoint is a socket by another path, such as below
// /var/run and below /run.
func sameFile(text string, socket endpoint.Endpoint) bool {
	other, err := endpoint.Parse(text)
	if err != nil {
		return false
	}
	a, errA := os.Stat(other.Address())
	b, errB := os.Stat(socket.Address())
	return errA == nil && errB == nil && os.SameFile(a, b)
}

// order judges which provider writes: the first one.
func order(ours []entryOf) outcome {
	var all []string
	for _, o := range ours {
		switch first := o.Providers[0]; {
		case o.first:
			all = append(all, o.resources())
		case first.Kind == "identity":
			return fail("Put the plugin first: trousseauctl encryption-config FILE --phase write --in-place.", "%s are written in plaintext: identity is first", o.resources())
		default:
			return warn("When every kube-apiserver can read through the plugin, put it first: trousseauctl encryption-config FILE --phase write --in-place.", "%s are written by %s; the plugin only reads", o.resources(), first)
		}
	}
	return ok("the plugin is first for %s", strings.Join(all, ", "))
}

// timeouts compares the shortest timeout of our plugin with the daemon's.
func (e *examination) timeouts(ours []entryOf) outcome {
	shortest := ours[0].kms[0]
	for _, o := range ours {
		for _, k := range o.kms {
			if k.Timeout < shortest.Timeout {
				shortest = k
			}
		}
	}
	if shortest.Timeout <= e.RequestTimeout {
		return fail(fmt.Sprintf("Write a longer timeout, such as timeout: %s, or start trousseau with a shorter --request-timeout.", e.RequestTimeout*2),
			"the timeout of %q is %s, but trousseau may take %s: kube-apiserver gives up before the answer", shortest.Name, shortest.Timeout, e.RequestTimeout)
	}
	return ok("%s, longer than trousseau's %s", shortest.Timeout, e.RequestTimeout)
}

// identity judges whether plaintext is read.
func identity(ours []entryOf) outcome {
	for _, o := range ours {
		if slices.ContainsFunc(o.Providers, func(p encryptionconfig.Provider) bool { return p.Kind == "identity" }) {
			return warn("Remove identity when trousseauctl audit finds no plaintext.", "%s are also read in plaintext: anyone who can write to etcd can plant Secrets", o.resources())
		}
	}
	return ok("plaintext is not read")
}
