// SPDX-License-Identifier: Apache-2.0

package vaulttest

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
)

const kindCert = "cert"

// Cert is a TLS certificate auth method: the client certificate of the connection is exchanged for a token.
type Cert struct{ AuthMethod }

// CertOptions describes a role; this method's API calls it a certificate.
type CertOptions struct {
	// Token describes the tokens issued at login. Namespace and NotRenewable are not supported, and they are always orphans.
	Token TokenOptions
	// Certificate is the trusted certificate (PEM): a CA, or a single client's certificate. Nil means the CA of
	// IssueClientCert.
	Certificate []byte
}

// EnableCert enables a cert method in a namespace ("" is the root) and creates the namespace if it is missing. The
// path is without auth/; clients default to "cert". Logins need TLS: plain HTTP and RoundTripper are refused.
func (s *Server) EnableCert(namespace, path string) *Cert {
	return &Cert{s.enable(kindCert, namespace, path)}
}

// SetRole creates or replaces a role.
func (c *Cert) SetRole(name string, options CertOptions) {
	trusted := options.Certificate
	if trusted == nil {
		ca, err := c.store.clientCA()
		if err != nil {
			panic(err)
		}
		trusted = ca.pem
	}
	block, _ := pem.Decode(trusted)
	if block == nil {
		panic("vaulttest: writing role " + name + ": Certificate is not PEM")
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		panic(fmt.Sprintf("vaulttest: writing role %s: %v", name, err))
	}
	c.setRole(name, options.Token, func(r *role) {
		r.trusted = certificate
	})
}

// identifyCert finds the role for the connection's certificate: the one with the given name, or the first match
// (vault, builtin/credential/cert/path_login.go, verifyCredentials).
func (m *authMount) identifyCert(peer *tls.ConnectionState, name string) (identity, *reply) {
	switch {
	case peer == nil:
		return identity{}, refused(http.StatusBadRequest, "tls connection required")
	case len(peer.PeerCertificates) == 0:
		return identity{}, refused(http.StatusBadRequest, "client certificate must be supplied")
	}
	names := []string{name}
	if name == "" {
		names = slices.Sorted(maps.Keys(m.roles))
	}
	roots := x509.NewCertPool()
	var candidates []*role
	for _, name := range names {
		if r := m.roles[name]; r != nil {
			candidates = append(candidates, r)
			roots.AddCert(r.trusted)
		}
	}
	leaf := peer.PeerCertificates[0]
	chains, err := chainsTo(roots, peer.PeerCertificates)
	if err != nil {
		return identity{}, refused(http.StatusInternalServerError, "failed to verify client's certificate: "+err.Error())
	}
	for _, r := range candidates {
		if !covers(r.trusted, leaf, chains) {
			continue
		}
		return identity{role: r, alias: leaf.Subject.CommonName, display: r.name, metadata: map[string]string{
			"authority_key_id": hexed(leaf.AuthorityKeyId),
			"cert_name":        r.name,
			"common_name":      leaf.Subject.CommonName,
			"serial_number":    leaf.SerialNumber.String(),
			"subject_key_id":   hexed(leaf.SubjectKeyId),
		}}, nil
	}
	return identity{}, refused(http.StatusBadRequest, "failed to match all constraints for this login certificate")
}

// chainsTo verifies a client's certificates. It is not an error if there is no chain.
func chainsTo(roots *x509.CertPool, shown []*x509.Certificate) ([][]*x509.Certificate, error) {
	intermediates := x509.NewCertPool()
	for _, certificate := range shown[1:] {
		intermediates.AddCert(certificate)
	}
	chains, err := shown[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	var unknown x509.UnknownAuthorityError
	if errors.As(err, &unknown) {
		return nil, nil
	}
	return chains, err
}

// covers reports whether trusted is the leaf itself or part of one of its chains.
func covers(trusted, leaf *x509.Certificate, chains [][]*x509.Certificate) bool {
	return trusted.Equal(leaf) || slices.ContainsFunc(chains, func(chain []*x509.Certificate) bool {
		return slices.ContainsFunc(chain, trusted.Equal)
	})
}

// renewCert returns the role for a renewal. Vault requires a certificate that still matches the role, and unchanged
// policies.
func (m *authMount) renewCert(t *token, peer *tls.ConnectionState) (*role, *reply) {
	who, denied := m.identifyCert(peer, t.role)
	switch {
	case denied != nil && denied.status == http.StatusInternalServerError:
		return nil, notRenewed(denied.errors[0])
	case denied != nil:
		return nil, denied
	}
	if !slices.Equal(withoutDefault(who.role.token.Policies), withoutDefault(t.policies)) {
		return nil, notRenewed("policies have changed, not renewing")
	}
	return who.role, nil
}

func withoutDefault(policies []string) []string {
	list := slices.DeleteFunc(slices.Clone(policies), func(name string) bool { return name == "default" })
	slices.Sort(list)
	return slices.Compact(list)
}

// hexed prints an identifier as Vault does: pairs of digits with colons.
func hexed(id []byte) string {
	var pairs []string
	for _, b := range id {
		pairs = append(pairs, fmt.Sprintf("%02x", b))
	}
	return strings.Join(pairs, ":")
}
