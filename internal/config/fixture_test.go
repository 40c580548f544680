// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"io/fs"
	"math/big"
	"syscall"
	"testing"
	"time"
)

// files is a small /etc/trousseau: file name → content, nil for an unreadable file.
type files map[string][]byte

// Open is a config.Opener with the operating system's errors.
func (f files) Open(name string) ([]byte, error) {
	content, exists := f[name]
	switch {
	case !exists:
		return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.ENOENT}
	case content == nil:
		return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.EACCES}
	}
	return content, nil
}

const (
	etc          = "/etc/trousseau/"
	fileToken    = "hvs.from-a-file"
	fileSecretID = "ae4d7d1e-0b5c-4c3e-9f5a-53cf1f4cf1a7"
	fileJWT      = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIGZpbGUifQ."
	podJWT       = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIHBvZCJ9."

	// serviceAccount is the path of a pod's JWT in Kubernetes.
	serviceAccount = "/var/run/secrets/kubernetes.io/serviceaccount/token"
)

// parameters is the block that openssl writes before an elliptic curve key.
var parameters = string(block("EC PARAMETERS", []byte{6, 1, 1}))

func newFiles(t testing.TB) files {
	t.Helper()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	clientKey, otherKey := newKey(t), newKey(t)
	ca, client := newCertificate(t, newKey(t)), newCertificate(t, clientKey)
	clientSEC1, err := x509.MarshalECPrivateKey(clientKey)
	if err != nil {
		t.Fatal(err)
	}
	damaged := []byte("this is no ASN.1")
	return files{
		etc + "ca.pem":      ca,
		etc + "ca-and-more": join([]byte("two authorities\n"), ca, client, pkcs8(t, clientKey)),

		etc + "client.pem":         client,
		etc + "client-key.pem":     pkcs8(t, clientKey),
		etc + "client-sec1.pem":    join([]byte(parameters), block("EC PRIVATE KEY", clientSEC1)),
		etc + "client-and-key.pem": join(pkcs8(t, clientKey), client),
		etc + "rsa.pem":            newCertificate(t, rsaKey),
		etc + "rsa-key.pem":        block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey)),

		etc + "other-key.pem":     pkcs8(t, otherKey),
		etc + "damaged.pem":       join(client, block("CERTIFICATE", damaged)),
		etc + "damaged-key.pem":   block("PRIVATE KEY", damaged),
		etc + "encrypted-key.pem": block("ENCRYPTED PRIVATE KEY", damaged),
		etc + "dek-info-key.pem": pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: damaged,
			Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-256-CBC,00"}}),

		etc + "token":       []byte(fileToken + "\n"),
		etc + "secret-id":   []byte(fileSecretID + "\n"),
		etc + "jwt":         []byte(fileJWT + "\n"),
		serviceAccount:      []byte(podJWT),
		etc + "two-words":   []byte("hvs.one hvs.two"),
		etc + "two-lines":   []byte("hvs.one\nhvs.two\n"),
		etc + "no-value":    []byte("<no value>\n"),
		etc + "placeholder": []byte("${VAULT_TOKEN}\n"),
		etc + "garbage":     []byte("hvs.\xff"),
		etc + "empty":       []byte(" \n"),
		etc + "unreadable":  nil,
	}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newCertificate(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return block("CERTIFICATE", der)
}

func pkcs8(t testing.TB, key crypto.PrivateKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return block("PRIVATE KEY", der)
}

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
