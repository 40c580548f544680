// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

// hostName matches what a certificate may name: DNS names, also with the underscore that some clusters have.
var hostName = regexp.MustCompile(`^\w([\w.-]{0,251}\w)?$`)

// tls reads what authenticates Vault to us and us to Vault.
func (p *parser) tls(s section, v *Vault) {
	if strings.HasPrefix(v.Address, "http:") {
		p.withoutTLS(s, v.Credential.Method)
	}
	v.CACert = p.certificates(s, "vaultCACert")
	v.TLSServerName = p.serverName(s)
	v.ClientCert, v.ClientKey = p.clientPair(s)
}

// withoutTLS refuses what an http address has no use for.
func (p *parser) withoutTLS(s section, m Method) {
	meaningless := []string{"vaultCACert", "tlsServerName"}
	if m == Certificate {
		name := s.first(certificate.fields...)
		p.refuse(s.lineOf(name), s.full(name), "is no credential with an http address; write https in vault.address, "+
			"or another credential in place of clientCert and clientKey")
	} else {
		meaningless = append(meaningless, certificate.fields...)
	}
	for _, name := range meaningless {
		if s.has(name) {
			p.refuse(s.lineOf(name), s.full(name), "has no meaning with an http address; "+
				"write https in vault.address or remove this line")
		}
	}
}

func (p *parser) serverName(s section) string {
	name, ok := p.text(s, "tlsServerName")
	if !ok {
		return ""
	}
	if _, err := netip.ParseAddr(name); err != nil && !hostName.MatchString(name) {
		p.refuse(s.lineOf("tlsServerName"), s.full("tlsServerName"),
			`is not a host name; write one that Vault's certificate names, such as "vault.example"`)
		return ""
	}
	return name
}

func (p *parser) clientPair(s section) (cert []byte, key Secret) {
	switch hasCert, hasKey := s.has("clientCert"), s.has("clientKey"); {
	case hasCert && !hasKey:
		p.refuse(s.lineOf("clientCert"), s.full("clientKey"), "is missing; clientCert needs the file with its private key")
	case hasKey && !hasCert:
		p.refuse(s.lineOf("clientKey"), s.full("clientCert"), "is missing; clientKey needs the file with its certificate")
	}
	cert, key = p.certificates(s, "clientCert"), p.privateKey(s, "clientKey")
	if cert == nil || key.IsZero() {
		return cert, key
	}
	if _, err := tls.X509KeyPair(cert, []byte(key.Reveal())); err != nil {
		p.refuse(s.lineOf("clientKey"), s.full("clientKey"), "does not belong to the first certificate in clientCert")
	}
	return cert, key
}

// certificates returns the CERTIFICATE blocks of the PEM file that a field names. It leaves everything else out, since
// the file may hold the private key as well and certificates are not kept secret.
func (p *parser) certificates(s section, name string) []byte {
	blocks, file, ok := p.pemFile(s, name)
	if !ok {
		return nil
	}
	var kept bytes.Buffer
	for _, block := range blocks {
		if block.Type != "CERTIFICATE" {
			continue
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			p.refuse(s.lineOf(name), s.full(name), "%s holds a certificate that cannot be parsed", show(file))
			return nil
		}
		kept.Write(pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes}))
	}
	if kept.Len() == 0 {
		p.refuse(s.lineOf(name), s.full(name), "%s holds no CERTIFICATE block", show(file))
		return nil
	}
	return kept.Bytes()
}

// privateKey returns the first private key in the PEM file that a field names.
func (p *parser) privateKey(s section, name string) Secret {
	blocks, file, ok := p.pemFile(s, name)
	if !ok {
		return Secret{}
	}
	wrong := "holds no PRIVATE KEY block"
	if at := slices.IndexFunc(blocks, isPrivateKey); at >= 0 {
		block := blocks[at]
		switch {
		case block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "":
			wrong = "holds a key under a passphrase, which nobody can type here; write it without one"
		case !parsable(block.Bytes):
			wrong = "holds a private key that cannot be parsed"
		default:
			return NewSecret(string(pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes})))
		}
	}
	p.refuse(s.lineOf(name), s.full(name), "%s %s", show(file), wrong)
	return Secret{}
}

// pemFile returns the blocks of the PEM file that a field names, at least one.
func (p *parser) pemFile(s section, name string) (blocks []*pem.Block, file string, ok bool) {
	content, file, ok := p.file(s, name, "")
	if !ok {
		return nil, "", false
	}
	for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
		blocks = append(blocks, block)
	}
	if len(blocks) == 0 {
		p.refuse(s.lineOf(name), s.full(name), "%s is not PEM, the text form that begins with -----BEGIN", show(file))
		return nil, "", false
	}
	return blocks, file, true
}

// isPrivateKey takes the block types that [tls.X509KeyPair] does.
func isPrivateKey(b *pem.Block) bool {
	return b.Type == "PRIVATE KEY" || strings.HasSuffix(b.Type, " PRIVATE KEY")
}

// parsable tells a damaged key from one that belongs to another certificate, as tls.X509KeyPair does not. It tries the
// same forms.
func parsable(der []byte) bool {
	_, pkcs1 := x509.ParsePKCS1PrivateKey(der)
	_, pkcs8 := x509.ParsePKCS8PrivateKey(der)
	_, sec1 := x509.ParseECPrivateKey(der)
	return pkcs1 == nil || pkcs8 == nil || sec1 == nil
}
