// SPDX-License-Identifier: Apache-2.0

package testbed

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/http"
	"time"
)

// authority is the CA that issues the certificates of a bed's servers.
type authority struct {
	// File is the path of the CA's certificate (PEM).
	File string

	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func (b *Bed) newAuthority() *authority {
	b.t.Helper()
	a := &authority{key: b.newKey(), pool: x509.NewCertPool()}
	template := certificate("testbed CA")
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err == nil {
		a.cert, err = x509.ParseCertificate(der)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	a.pool.AddCert(a.cert)
	a.File = b.Write("ca.pem", pemText("CERTIFICATE", der))
	return a
}

// issue writes a certificate and key for a server on the loopback interface, and
// returns the paths of both files.
func (b *Bed) issue(name string) (certFile, keyFile string) {
	b.t.Helper()
	template := certificate(name)
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	template.DNSNames = []string{"localhost"}
	template.IPAddresses = b.loopback()
	cert, key := b.sign(template)
	return b.Write(name+".pem", cert), b.Write(name+".key", key)
}

// loopback holds the addresses of the loopback interface.
func (b *Bed) loopback() (ips []net.IP) {
	b.t.Helper()
	interfaces, err := net.Interfaces()
	for _, i := range interfaces {
		if i.Flags&net.FlagLoopback == 0 {
			continue
		}
		addrs, errAddrs := i.Addrs()
		err = errors.Join(err, errAddrs)
		for _, addr := range addrs {
			if of, ok := addr.(*net.IPNet); ok {
				ips = append(ips, of.IP)
			}
		}
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return ips
}

// IssueClient issues a client certificate with this common name, signed by the CA of
// CAFile. It returns certificate and key as PEM.
func (b *Bed) IssueClient(name string) (cert, key string) {
	b.t.Helper()
	template := certificate(name)
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return b.sign(template)
}

// CAFile returns the path of the CA certificate (PEM) that all servers' certificates
// are signed with.
func (b *Bed) CAFile() string { return b.ca.File }

// sign creates a key and signs a certificate for it. Both are PEM.
func (b *Bed) sign(template *x509.Certificate) (cert, key string) {
	b.t.Helper()
	private := b.newKey()
	template.KeyUsage = x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, b.ca.cert, private.Public(), b.ca.key)
	if err != nil {
		b.t.Fatal(err)
	}
	return pemText("CERTIFICATE", der), b.keyText(private)
}

func (b *Bed) newKey() *ecdsa.PrivateKey {
	b.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.t.Fatal(err)
	}
	return key
}

func (b *Bed) keyText(key *ecdsa.PrivateKey) string {
	b.t.Helper()
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		b.t.Fatal(err)
	}
	return pemText("EC PRIVATE KEY", der)
}

// client returns an HTTP client that trusts the bed's servers.
func (a *authority) client() *http.Client {
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: a.pool, MinVersion: tls.VersionTLS12}}}
}

func certificate(name string) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    now.Add(-time.Minute),
		NotAfter:     now.Add(24 * time.Hour),
	}
}

func pemText(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}
