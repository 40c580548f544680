// SPDX-License-Identifier: Apache-2.0

// Package config turns the bytes of config.yaml into a validated [Config].
//
// The file is usually rendered by a Vault Agent template, and no one reads it until it is wrong. So Parse reports all
// mistakes at once, each with its line, its field and what to write instead. Because the file holds a Vault token, no
// text made here quotes a value that could be a secret.
//
// The package reads YAML and PEM. It does not call Vault, and it does not check whether a certificate has expired.
package config

import (
	"cmp"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// MaxSize is the maximum size of config.yaml and of each file it names, in bytes. A real one has a few hundred bytes;
// the limit keeps a wrong file name from filling the memory.
const MaxSize = 1 << 20

// Config is one version of config.yaml. [Parse] makes it and has checked every field. Treat it as read-only. It may be
// printed: the secrets in it redact themselves.
type Config struct {
	// Vault says where Vault is, how to log in and which keys to use.
	Vault Vault
}

// Vault is the vault section of config.yaml.
type Vault struct {
	// Address is the base URL: scheme://host or scheme://host:port, scheme http or https, no trailing slash.
	Address string
	// Addresses are the URLs of further nodes of the same Vault, in the form and with the scheme of Address, without
	// duplicates and without Address. Nil means that Address is the only one.
	Addresses []string
	// Namespace is the Vault namespace, without leading or trailing slash; empty is the root namespace.
	Namespace string
	// TransitPath is the mount of the transit engine, without leading or trailing slash; "transit" by default.
	TransitPath string
	// KeyNames are the transit keys: at least one, no duplicates. The first encrypts, the others only decrypt.
	KeyNames []string
	// Credential is how to log in.
	Credential Credential
	// AssociatedData, 1 to 256 bytes, is bound into every ciphertext, which cannot be decrypted without it. It is not
	// secret. Empty means none.
	AssociatedData string
	// RequireAssociatedData refuses to decrypt a ciphertext made without AssociatedData; never true when
	// AssociatedData is empty.
	RequireAssociatedData bool
	// AcceptBareKeyIDs also decrypts seeds whose key_id is only a number, as other plugins write it, with any key of
	// KeyNames; never true when AssociatedData is set.
	AcceptBareKeyIDs bool
	// CACert holds the certificates, as PEM, that Vault's certificate is verified against; nil means the system's
	// roots.
	CACert []byte
	// TLSServerName replaces the host of the address when Vault's certificate is verified; empty means that host.
	TLSServerName string
	// ClientCert is the certificate chain to present to Vault, as PEM, leaf first; nil means none.
	ClientCert []byte
	// ClientKey is the private key of ClientCert, as one PEM block; empty exactly when ClientCert is nil.
	ClientKey Secret
}

// InTheClear returns the first address whose connection another host could listen to: http, and a host other than this
// one. It returns "" when there is none. Only the name decides what this host is: localhost, a name that ends in
// .localhost (RFC 6761, section 6.3), or a loopback address.
func (v *Vault) InTheClear() string {
	for _, address := range append([]string{v.Address}, v.Addresses...) {
		if u, err := url.Parse(address); err == nil && u.Scheme == "http" && !isLoopback(u.Hostname()) {
			return address
		}
	}
	return ""
}

func isLoopback(host string) bool {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.IsLoopback()
	}
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	return name == "localhost" || strings.HasSuffix(name, ".localhost")
}

// Parse reads data, the content of config.yaml, and the files it names, each through open (nil means [ReadFile]). open
// gets absolute names; its errors are shown to the operator, so they must not hold a secret. The error of Parse is an
// [*Error] that lists every problem, in the order of the file. Parse keeps no reference to data.
func Parse(data []byte, open func(name string) ([]byte, error)) (*Config, error) {
	if open == nil {
		open = ReadFile
	}
	root, problems := decode(data)
	p := &parser{open: open, problems: problems}
	var c Config
	if root != nil {
		c.Vault = p.root(root)
	}
	if len(p.problems) > 0 {
		slices.SortStableFunc(p.problems, func(a, b Problem) int { return cmp.Compare(a.Line, b.Line) })
		return nil, &Error{Problems: p.problems}
	}
	return &c, nil
}

// parser is the state of one Parse.
type parser struct {
	open     func(name string) ([]byte, error)
	problems []Problem // found so far
}

// refuse records a problem. A value from the file must pass through show before it gets into text.
func (p *parser) refuse(at place, text string) {
	p.problems = append(p.problems, Problem{Field: at.field, Line: at.line, Text: text})
}

// accept reports whether wrong is empty. If not, it is a problem.
func (p *parser) accept(at place, wrong string) bool {
	if wrong != "" {
		p.refuse(at, wrong)
	}
	return wrong == ""
}

// root reads the whole file, and applies the rules that concern several fields. The result is valid only if nothing is
// refused.
func (p *parser) root(n *yaml.Node) (v Vault) {
	top := p.section(place{line: n.Line}, n)
	if top != nil && !top.has("vault") {
		p.refuse(place{field: "vault"}, `is missing; write "vault:" and, indented below it, keynames, address and token`)
	}
	s := top["vault"].inner
	if s == nil {
		return v
	}
	for _, key := range s["keynames"].items {
		v.KeyNames = append(v.KeyNames, key.text)
	}
	v.Address = s["address"].text
	scheme, _, _ := strings.Cut(v.Address, ":")
	for _, node := range s["addresses"].items {
		switch {
		case node.text == v.Address:
			p.refuse(node.place, duplicate(node.text, s["address"].line))
		case v.Address != "" && !strings.HasPrefix(node.text, scheme+":"):
			p.refuse(node.place, "has a different scheme than vault.address; "+
				"use https:// in both, otherwise the token is sometimes sent unencrypted")
		}
		v.Addresses = append(v.Addresses, node.text)
	}
	v.Namespace = s["namespace"].text
	v.TransitPath = cmp.Or(s["transitPath"].text, "transit")
	v.AssociatedData = s["associatedData"].text
	v.RequireAssociatedData = strings.EqualFold(s["requireAssociatedData"].text, "true")
	if v.RequireAssociatedData && !s.has("associatedData") {
		p.missing(s, "associatedData", "requireAssociatedData", "write it, or remove the line requireAssociatedData")
	}
	v.AcceptBareKeyIDs = strings.EqualFold(s["acceptBareKeyIDs"].text, "true")
	if v.AcceptBareKeyIDs && s.has("associatedData") {
		p.refuse(s["acceptBareKeyIDs"].place, "cannot be set together with associatedData, because the plugin that you come from "+
			"cannot read what is bound to it; remove this line if nothing in etcd has a bare key_id, or else set associatedData later")
	}
	v.Credential = p.credential(s, v.Namespace)
	p.tls(s, &v)
	return v
}

// missing refuses the absence of a field that the field needing depends on.
func (p *parser) missing(s section, name, needing, howTo string) {
	p.refuse(place{s[name].field, s[needing].line}, "is missing; "+howTo)
}
