// SPDX-License-Identifier: Apache-2.0

package vaulttest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"sync"
	"time"
)

// pki holds the server's CA and certificate, and the pool with the separate CA of client certificates.
type pki struct {
	names []string

	clientPool          *x509.CertPool // nil unless client certificates are required
	clientCert, clientK []byte         // PEM

	mu     sync.Mutex
	caPEM  []byte
	active *tls.Config
}

type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

// newPKI creates the certificates of one node.
func (st *store) newPKI(options Options) (*pki, error) {
	p := &pki{names: append([]string{"localhost"}, options.Names...)}
	if options.ClientCert {
		ca, err := st.clientCA()
		if err != nil {
			return nil, err
		}
		if p.clientCert, p.clientK, err = ca.issue("vaulttest client", nil, x509.ExtKeyUsageClientAuth); err != nil {
			return nil, err
		}
		p.clientPool = x509.NewCertPool()
		p.clientPool.AddCert(ca.cert)
	}
	return p, p.rotate()
}

// rotate creates a new CA, server certificate and TLS configuration. A new tls.Config also means new session
// ticket keys, so that clients cannot avoid the new CA by resuming a session.
func (p *pki) rotate() error {
	ca, err := newAuthority("vaulttest CA")
	if err != nil {
		return err
	}
	cert, key, err := ca.issue("vaulttest", p.names, x509.ExtKeyUsageServerAuth)
	if err != nil {
		return err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return fmt.Errorf("pairing certificate and key: %w", err)
	}
	config := &tls.Config{
		MinVersion:   tls.VersionTLS12,
		Certificates: []tls.Certificate{pair},
		NextProtos:   []string{"h2", "http/1.1"},
		// As in Vault, a client certificate is optional, and only the cert auth method checks it.
		ClientAuth: tls.RequestClientCert,
	}
	if p.clientPool != nil {
		config.ClientAuth = tls.RequireAndVerifyClientCert
		config.ClientCAs = p.clientPool
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.caPEM, p.active = ca.pem, config
	return nil
}

func (p *pki) config() *tls.Config {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.active
}

// CAPEM returns the certificate (PEM) of the CA that signed the server's current certificate; nil without TLS.
func (s *Server) CAPEM() []byte {
	if s.pki == nil {
		return nil
	}
	s.pki.mu.Lock()
	defer s.pki.mu.Unlock()
	return s.pki.caPEM
}

// ClientCertPEM returns a client certificate that the server accepts; nil unless Options.ClientCert was set.
func (s *Server) ClientCertPEM() []byte {
	if s.pki == nil {
		return nil
	}
	return s.pki.clientCert
}

// ClientKeyPEM returns the private key of ClientCertPEM; nil unless Options.ClientCert was set.
func (s *Server) ClientKeyPEM() []byte {
	if s.pki == nil {
		return nil
	}
	return s.pki.clientK
}

// IssueClientCert issues a client certificate with this common name and a new private key (PEM), valid for one
// day. It is signed by the CA of ClientCertPEM, which all nodes of the cluster share: it is accepted wherever a
// client certificate is required, and by the cert auth method.
func (s *Server) IssueClientCert(name string) (cert, key []byte) {
	ca, err := s.store.clientCA()
	if err == nil {
		cert, key, err = ca.issue(name, nil, x509.ExtKeyUsageClientAuth)
	}
	if err != nil {
		// This fails only if the source of randomness is broken.
		panic(err)
	}
	return cert, key
}

// RotateCA uses a certificate from a new CA for new handshakes (see CAPEM). Existing connections stay open. It
// fails without TLS.
func (s *Server) RotateCA() error {
	if s.pki == nil {
		return fmt.Errorf("rotating CA: the server was started without TLS")
	}
	if err := s.pki.rotate(); err != nil {
		return fmt.Errorf("rotating CA: %w", err)
	}
	return nil
}

func newAuthority(name string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generating key of %s: %w", name, err)
	}
	template := certificate(name)
	template.IsCA = true
	template.BasicConstraintsValid = true
	template.KeyUsage = x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("signing %s: %w", name, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parsing %s: %w", name, err)
	}
	return &authority{cert: cert, key: key, pem: encodePEM("CERTIFICATE", der)}, nil
}

// issue returns a leaf certificate and its private key in PEM. Names is nil for a client.
func (a *authority) issue(name string, names []string, usage x509.ExtKeyUsage) (cert, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("generating key of %s: %w", name, err)
	}
	template := certificate(name)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{usage}
	if len(names) > 0 {
		template.DNSNames = names
		template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &private.PublicKey, a.key)
	if err != nil {
		return nil, nil, fmt.Errorf("signing %s: %w", name, err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, fmt.Errorf("encoding key of %s: %w", name, err)
	}
	return encodePEM("CERTIFICATE", der), encodePEM("PRIVATE KEY", pkcs8), nil
}

// certificate uses the real clock, not Options.Now, because TLS clients check validity against the real clock.
func certificate(name string) *x509.Certificate {
	return &x509.Certificate{
		// CAs with the same name need different serial numbers: caches use issuer and serial number as the key.
		SerialNumber: new(big.Int).SetBytes([]byte(rand.Text())[:16]),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
	}
}

func encodePEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
