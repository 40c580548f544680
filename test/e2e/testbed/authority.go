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
	"math/big"
	"net"
	"net/http"
	"time"
)

// authority is the CA of all servers of a bed.
type authority struct {
	// File is the CA's certificate, PEM.
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

// issue writes a certificate for a server on the loopback interface and its
// key, and returns the files.
func (b *Bed) issue(name string) (certFile, keyFile string) {
	b.t.Helper()
	key := b.newKey()
	template := certificate(name)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	template.DNSNames = []string{"localhost"}
	template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	der, err := x509.CreateCertificate(rand.Reader, template, b.ca.cert, key.Public(), b.ca.key)
	if err != nil {
		b.t.Fatal(err)
	}
	return b.Write(name+".pem", pemText("CERTIFICATE", der)), b.writeKey(name+".key", key)
}

func (b *Bed) newKey() *ecdsa.PrivateKey {
	b.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.t.Fatal(err)
	}
	return key
}

func (b *Bed) writeKey(path string, key *ecdsa.PrivateKey) string {
	b.t.Helper()
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		b.t.Fatal(err)
	}
	return b.Write(path, pemText("EC PRIVATE KEY", der))
}

// client trusts the bed's servers.
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
