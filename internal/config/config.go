// SPDX-License-Identifier: Apache-2.0

// Package config turns the bytes of config.yaml into a validated [Config].
//
// The file is rendered by a Vault Agent template and usually read by nobody, until it is wrong. So every mistake is
// reported at once, each with its line, its field and what to write instead; and since the file holds a Vault token,
// no text made here quotes a value that could be one.
//
// The package reads YAML and PEM and nothing else: it calls no Vault, and whether a certificate has expired is not its
// question.
package config

import (
	"fmt"

	"go.yaml.in/yaml/v3"
)

// MaxSize bounds config.yaml and each file it names, in bytes. A real one has a few hundred; the bound keeps a wrong
// file name from filling the memory.
const MaxSize = 1 << 20

// Config is what one version of config.yaml says. It is made by [Parse], which has checked every field; treat it as
// read-only. It may be printed: the secrets in it redact themselves.
type Config struct {
	// Vault says where Vault is, how to log in and which keys to use.
	Vault Vault
}

// Vault is the vault section of config.yaml.
type Vault struct {
	// Address is the base URL: scheme://host or scheme://host:port, scheme http or https, no trailing slash.
	Address string
	// Addresses are the URLs of further nodes of the same Vault, in the form and with the scheme of Address; neither
	// Address nor any other is among them twice. Nil means that there is but one.
	Addresses []string
	// Namespace is the Vault namespace, without leading or trailing slash; empty is the root namespace.
	Namespace string
	// TransitPath is the mount of the transit engine, without leading or trailing slash; "transit" when the file does
	// not say.
	TransitPath string
	// KeyNames are the transit keys: at least one, no duplicates. The first encrypts, the others only decrypt.
	KeyNames []string
	// Credential is how to log in.
	Credential Credential
	// AssociatedData, 1 to 256 bytes, is bound into every ciphertext, which cannot be decrypted without it. It is no
	// secret. Empty means none.
	AssociatedData string
	// RequireAssociatedData says that a ciphertext made without AssociatedData is not to be decrypted; never true when
	// AssociatedData is empty.
	RequireAssociatedData bool
	// CACert holds, as PEM, the certificates that Vault's own certificate is checked against; nil means the system's
	// roots.
	CACert []byte
	// TLSServerName replaces the host of the address asked when Vault's certificate is checked; empty means that host.
	TLSServerName string
	// ClientCert holds, as PEM, the certificate chain to show to Vault, leaf first; nil means none.
	ClientCert []byte
	// ClientKey is the private key of ClientCert, as one PEM block; empty when ClientCert is nil, and only then.
	ClientKey Secret
}

// Parse reads data, the content of config.yaml, and the files it names, each through open (nil means [ReadFile]).
// The error is an [*Error] that lists every problem found, in the order of the file. Parse keeps no reference to data.
func Parse(data []byte, open Opener) (*Config, error) {
	if open == nil {
		open = ReadFile
	}
	p := &parser{open: open}
	root, problems := decode(data)
	p.problems = problems
	var c Config
	if root != nil {
		p.config(root, &c)
	}
	if len(p.problems) > 0 {
		return nil, newError(p.problems)
	}
	return &c, nil
}

// parser is the state of one Parse: what it may open, and what it has found wrong so far.
type parser struct {
	open     Opener
	problems []Problem
}

// refuse records a problem. Arguments that come from the file must have passed through show.
func (p *parser) refuse(line int, field, format string, args ...any) {
	p.problems = append(p.problems, Problem{Field: field, Line: line, Text: fmt.Sprintf(format, args...)})
}

func (p *parser) config(root *yaml.Node, c *Config) {
	top, ok := p.section("", root.Line, root)
	if !ok {
		return
	}
	if provider, ok := p.text(top, "provider"); ok && provider != "vault" {
		p.refuse(top.lineOf("provider"), "provider", `must be "vault", the only provider there is`)
	}
	if !top.has("vault") {
		p.refuse(0, "vault", `is missing; write "vault:" and, indented below it, keynames, address and token`)
		return
	}
	if s, ok := p.section("vault", top.lineOf("vault"), top.value("vault")); ok {
		p.vault(s, &c.Vault)
	}
}

func (p *parser) vault(s section, v *Vault) {
	v.KeyNames = p.keyNames(s)
	v.Address = p.address(s)
	v.Addresses = p.addresses(s, v.Address)
	v.Namespace = p.path(s, "namespace", "")
	v.TransitPath = p.path(s, "transitPath", "transit")
	v.Credential = p.credential(s, v.Namespace)
	v.AssociatedData, v.RequireAssociatedData = p.associatedData(s)
	p.tls(s, v)
}
