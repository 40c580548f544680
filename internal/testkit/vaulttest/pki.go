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

// pki holds the server's CA and certificate, and the pool of the separate CA that client certificates come from.
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

// newPKI makes the certificates of one node.
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

// rotate makes a new CA, server certificate and TLS configuration. A new tls.Config also means new session ticket
// keys, so that no client slips past the new CA by resuming an old session.
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
		// As Vault does: a client may show a certificate, and only the cert auth method looks at it.
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

// CAPEM is the certificate, in PEM, of the CA that signed the server's current certificate; nil without TLS.
func (s *Server) CAPEM() []byte {
	if s.pki == nil {
		return nil
	}
	s.pki.mu.Lock()
	defer s.pki.mu.Unlock()
	return s.pki.caPEM
}

// ClientCertPEM is a client certificate the server accepts; nil unless Options.ClientCert was set.
func (s *Server) ClientCertPEM() []byte {
	if s.pki == nil {
		return nil
	}
	return s.pki.clientCert
}

// ClientKeyPEM is the private key of ClientCertPEM; nil unless Options.ClientCert was set.
func (s *Server) ClientKeyPEM() []byte {
	if s.pki == nil {
		return nil
	}
	return s.pki.clientK
}

// IssueClientCert makes a client certificate of that common name and its private key, in PEM, good for a day. It comes
// from the CA of ClientCertPEM, which every node of the cluster knows: it is accepted wherever one is required, and by
// the cert auth method. Each call makes another key.
func (s *Server) IssueClientCert(name string) (cert, key []byte) {
	ca, err := s.store.clientCA()
	if err == nil {
		cert, key, err = ca.issue(name, nil, x509.ExtKeyUsageClientAuth)
	}
	if err != nil {
		// Only a broken source of randomness could do that.
		panic(err)
	}
	return cert, key
}

// RotateCA makes new handshakes use a certificate from a new CA (see CAPEM). Connections that exist go on.
// It fails without TLS.
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

// certificate dates by the real clock: TLS clients check against it, whatever Options.Now says.
func certificate(name string) *x509.Certificate {
	return &x509.Certificate{
		// Two CAs of the same name must differ in serial, or caches keyed by issuer and serial take them for one.
		SerialNumber: new(big.Int).SetBytes([]byte(rand.Text())[:16]),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
	}
}

func encodePEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
