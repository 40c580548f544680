// SPDX-License-Identifier: Apache-2.0

package vaultsuite

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// parties are the external systems that Vault trusts for logins: the CA of client certificates, the issuer of
// JWTs, and the Kubernetes API server that reviews tokens.
type parties struct {
	variables   map[string]string
	certificate tls.Certificate
}

// vars are the variables that every conversation starts with.
func (p *parties) vars() map[string]string { return maps.Clone(p.variables) }

func newParties(t *testing.T) *parties {
	caKey, leafKey, issuer, stranger := newKey(t), newKey(t), newKey(t), newKey(t)
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "vaultsuite CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "trousseau"}, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, leafKey.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	publicKey, err := x509.MarshalPKIXPublicKey(issuer.Public())
	if err != nil {
		t.Fatal(err)
	}
	good := sign(t, issuer)
	review := newReviewer(t, good)
	return &parties{
		certificate: tls.Certificate{Certificate: [][]byte{leafDER}, PrivateKey: leafKey},
		variables: map[string]string{
			"client_ca":  inJSON(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER})),
			"jwt_key":    inJSON(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: publicKey})),
			"jwt":        good,
			"jwt_other":  sign(t, stranger),
			"reviewer":   review.URL,
			"reviews_ca": inJSON(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: review.Certificate().Raw})),
		},
	}
}

// client returns an HTTPS client, optionally with the client certificate.
func (p *parties) client(t *testing.T, ca []byte, show bool) *http.Client {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}
	if show {
		// Ignore the CAs that the server names: the cert auth method accepts any certificate and checks it itself.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &p.certificate, nil }
	}
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 30 * time.Second}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// sign creates a JWT of the service account kube-system/trousseau.
func sign(t *testing.T, key *ecdsa.PrivateKey) string {
	now := time.Now()
	claims, err := json.Marshal(map[string]any{
		"iss": "https://kubernetes.default.svc", "sub": "system:serviceaccount:kube-system:trousseau", "aud": []string{"vault"},
		"iat": now.Add(-time.Minute).Unix(), "nbf": now.Add(-time.Minute).Unix(), "exp": now.Add(time.Hour).Unix(), "jti": rand.Text(),
		"kubernetes.io": map[string]any{
			"namespace": "kube-system", "serviceaccount": map[string]any{"name": "trousseau", "uid": "11111111-2222-3333-4444-555555555555"},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode([]byte(`{"alg":"ES256","typ":"JWT"}`)) + "." + encode(claims)
	digest := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return signed + "." + encode(signature)
}

// newReviewer starts the token review API of a Kubernetes API server. It accepts one token.
func newReviewer(t *testing.T, good string) *httptest.Server {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review struct {
			Spec struct {
				Token     string   `json:"token"`
				Audiences []string `json:"audiences"`
			} `json:"spec"`
		}
		_ = json.NewDecoder(r.Body).Decode(&review)
		status := map[string]any{"authenticated": false}
		if review.Spec.Token == good {
			status = map[string]any{"authenticated": true, "audiences": review.Spec.Audiences, "user": map[string]any{
				"username": "system:serviceaccount:kube-system:trousseau", "uid": "11111111-2222-3333-4444-555555555555",
				"groups": []string{"system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"},
			}}
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(map[string]any{
			"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status,
		})
	}))
	t.Cleanup(server.Close)
	return server
}

// inJSON escapes a text for use inside a JSON string.
func inJSON(text []byte) string {
	encoded, _ := json.Marshal(string(text)) // a string always marshals
	return strings.Trim(string(encoded), `"`)
}
