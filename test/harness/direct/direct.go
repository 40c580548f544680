// SPDX-License-Identifier: Apache-2.0

// Package direct calls a Vault without Trousseau, like a program that needs only the
// result: no retries, no metrics, no second node. It is what Trousseau is compared
// with, and how a suite without a test bed sets up its Vault.
package direct

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Client calls one Vault with one token. It is safe for concurrent use.
type Client struct {
	web   *http.Client
	url   string
	token string
}

// New returns a client for the Vault at url, whose certificate is signed by the CA
// (PEM; nil without TLS). It keeps one HTTP/1.1 connection per caller, at most conns.
// HTTP/2 would put all callers on one connection and make the baseline slower.
func New(url string, ca []byte, token string, conns int) (*Client, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool()}
	if ca != nil && !config.RootCAs.AppendCertsFromPEM(ca) {
		return nil, errors.New("the CA is not a certificate")
	}
	return &Client{url: url + "/v1/", token: token, web: &http.Client{Transport: &http.Transport{
		TLSClientConfig:     config,
		MaxIdleConns:        conns,
		MaxIdleConnsPerHost: conns,
		MaxConnsPerHost:     conns,
		IdleConnTimeout:     90 * time.Second,
	}}}, nil
}

// Encrypt encrypts with a key of the transit engine.
func (c *Client) Encrypt(ctx context.Context, key string, plaintext []byte) (ciphertext []byte, err error) {
	var answer struct {
		Data struct {
			Ciphertext string `json:"ciphertext"`
		} `json:"data"`
	}
	body := map[string]string{"plaintext": base64.StdEncoding.EncodeToString(plaintext)}
	err = c.Call(ctx, http.MethodPost, "transit/encrypt/"+key, body, &answer)
	return []byte(answer.Data.Ciphertext), err
}

// Decrypt decrypts with a key of the transit engine.
func (c *Client) Decrypt(ctx context.Context, key string, ciphertext []byte) (plaintext []byte, err error) {
	var answer struct {
		Data struct {
			Plaintext []byte `json:"plaintext"`
		} `json:"data"`
	}
	err = c.Call(ctx, http.MethodPost, "transit/decrypt/"+key, map[string]string{"ciphertext": string(ciphertext)}, &answer)
	return answer.Data.Plaintext, err
}

// Call calls the API and decodes the response into answer unless that is nil. A nil
// body sends none. Any status but 2xx is an error.
func (c *Client) Call(ctx context.Context, method, path string, body, answer any) error {
	var content io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return err
		}
		content = bytes.NewReader(encoded)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.url+path, content)
	if err != nil {
		return err
	}
	req.Header.Set("X-Vault-Token", c.token)
	resp, err := c.web.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s directly: %s: %s", method, path, resp.Status, text)
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(text, answer)
}

// Close closes the idle connections.
func (c *Client) Close() { c.web.CloseIdleConnections() }

// FindVault returns the path of the Vault binary in the directory that TROUSSEAU_E2E
// names, or of the newest that test/tools/build has built; "" if there is none.
func FindVault() (string, error) {
	if dir := os.Getenv("TROUSSEAU_E2E"); dir != "" {
		return filepath.Join(dir, "vault"), nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	found, err := filepath.Glob(filepath.Join(cache, "trousseau", "vault-"+strings.Repeat("?", 16), "vault"))
	if err != nil {
		return "", err
	}
	newest, built := "", time.Time{}
	for _, path := range found {
		if info, err := os.Stat(path); err == nil && info.ModTime().After(built) {
			newest, built = path, info.ModTime()
		}
	}
	return newest, nil
}
