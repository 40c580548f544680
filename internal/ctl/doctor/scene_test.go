// SPDX-License-Identifier: Apache-2.0

package doctor_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"io/fs"
	"log"
	"math/big"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/internal/ctl/doctor"
	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

const keyName = "kek"

// scene is a healthy node: a Vault with TLS, a key, a periodic token with the
// minimal policy, and config.yaml. A test breaks it before examine.
type scene struct {
	t     *testing.T
	dir   string
	vault *vaulttest.Server
	front *httptest.Server // TLS in front of vault
	pair  tls.Certificate  // its certificate

	key     *vaulttest.Key
	rules   vaulttest.Rules
	options vaulttest.TokenOptions
	token   string // empty: created from options and rules
	method  string // lines of the credential; empty: token

	address    string
	keys       string // in keynames
	caCert     string // the lines for it
	lines      string // additional lines below vault
	file       string
	fileMode   fs.FileMode
	dirMode    fs.FileMode
	o          doctor.Options
	substitute []string // variable texts and their placeholders
}

func newScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{t: t, dir: t.TempDir(), vault: vaulttest.Start(t), fileMode: 0o600, dirMode: 0o755, keys: keyName}
	s.key = s.vault.CreateKey(keyName)
	s.rules = vaulttest.TransitPolicy("transit", keyName)
	s.options = vaulttest.TokenOptions{Orphan: true, Period: 768 * time.Hour}
	s.serve(certificate(t, 90*24*time.Hour, "127.0.0.1"))
	s.file = filepath.Join(s.dir, "config.yaml")
	s.o.Config = s.file
	s.o.RequestTimeout = 20 * time.Second // more than half of it counts as slow
	return s
}

// serve serves Vault with TLS and this certificate.
func (s *scene) serve(pair tls.Certificate) {
	s.pair = pair
	s.front = s.inFrontOf(s.vault)
	s.address = s.front.URL
	ca := filepath.Join(s.dir, "ca.crt")
	s.write(ca, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[len(pair.Certificate)-1]})), 0o644)
	s.caCert = "  vaultCACert: " + ca + "\n"
}

func (s *scene) inFrontOf(v *vaulttest.Server) *httptest.Server {
	front := httptest.NewUnstartedServer(v.Handler())
	front.TLS = &tls.Config{Certificates: []tls.Certificate{s.pair}}
	front.Config.ErrorLog = log.New(io.Discard, "", 0)
	front.StartTLS()
	s.t.Cleanup(front.Close)
	return front
}

// join adds the address of a second node. Without options, it is one of another Vault.
func (s *scene) join(options ...vaulttest.Options) *vaulttest.Server {
	node := vaulttest.Start(s.t, options...)
	front := s.inFrontOf(node)
	s.lines += "  addresses: [" + front.URL + "]\n"
	s.substitute = append(s.substitute, front.URL, "SECOND")
	return node
}

func (s *scene) write(file, text string, mode fs.FileMode) {
	s.t.Helper()
	if err := os.WriteFile(file, []byte(text), mode); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Chmod(file, mode); err != nil { // independent of the umask
		s.t.Fatal(err)
	}
}

// configure writes config.yaml and returns its text.
func (s *scene) configure() string {
	if s.token == "" {
		s.options.Rules = s.rules
		s.token = s.vault.CreateToken(s.options).ID
	}
	if s.method == "" {
		s.method = "  token: " + s.token + "\n"
	}
	text := fmt.Sprintf("provider: vault\nvault:\n  keynames: [%s]\n  address: %s\n%s%s%s", s.keys, s.address, s.caCert, s.method, s.lines)
	s.write(s.file, text, s.fileMode)
	if err := os.Chmod(s.dir, s.dirMode); err != nil {
		s.t.Fatal(err)
	}
	return text
}

// examine returns the report, and its findings that are neither ok nor skipped, each
// as "RESULT check subject: seen. fix".
func (s *scene) examine() (found []string, r doctor.Report) {
	s.t.Helper()
	r = doctor.Run(s.t.Context(), s.o)
	words := strings.NewReplacer(append(slices.Clone(s.substitute),
		s.dir, "DIR", s.front.URL, "VAULT", "127.0.0.1:"+port(s.front.URL), "ADDR", fmt.Sprintf("user %d, group %d", os.Getuid(), os.Getgid()), "ME")...)
	for _, f := range r.Checks {
		if secret, leaked := s.vault.Leak(f.Seen + f.Fix); leaked {
			s.t.Errorf("%s holds a secret: %.4s…", f.Name, secret)
		}
		if f.Result == doctor.Fail || f.Result == doctor.Warn {
			what := strings.TrimSuffix(f.Name+" "+f.Subject, " ")
			found = append(found, words.Replace(fmt.Sprintf("%s %s: %s | %s", f.Result, what, f.Seen, f.Fix)))
		}
	}
	return found, r
}

func port(address string) string { return address[strings.LastIndex(address, ":")+1:] }

// mustFind compares the findings; in an expectation, … matches any text.
func mustFind(t *testing.T, got, want []string) {
	t.Helper()
	same := slices.EqualFunc(got, want, func(g, w string) bool {
		pattern := strings.ReplaceAll(regexp.QuoteMeta(w), "…", ".*")
		return g == w || regexp.MustCompile("^"+pattern+"$").MatchString(g)
	})
	if !same {
		t.Errorf("found\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

// certificate is self-signed.
func certificate(t *testing.T, life time.Duration, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"},
		NotBefore: now.Add(-100 * 24 * time.Hour), NotAfter: now.Add(life),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
	}
	if ip := net.ParseIP(name); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{name}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// issued is a certificate for 127.0.0.1 issued by a CA, and expires after it.
func issued(t *testing.T, ca tls.Certificate) tls.Certificate {
	t.Helper()
	issuer, err := x509.ParseCertificate(ca.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "vault"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: issuer.NotBefore, NotAfter: issuer.NotAfter.Add(90 * 24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
	}, issuer, &key.PublicKey, ca.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der, ca.Certificate[0]}, PrivateKey: key}
}
