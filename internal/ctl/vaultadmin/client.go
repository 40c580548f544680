// SPDX-License-Identifier: Apache-2.0

// Package vaultadmin calls any path of Vault, with an administrator's token. The
// daemon never links it.
package vaultadmin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hashicorp/vault-client-go"

	"github.com/trousseau-io/trousseau/internal/config"
)

// timeout is the time limit for one call.
const timeout = 30 * time.Second

// Config says which Vault to call, with which token. Formatting it shows no token.
type Config struct {
	// Address is the URL of Vault. Dial refuses one with a path, a query or a user.
	Address string
	// Namespace is a Vault Enterprise namespace; "" for none.
	Namespace string
	// CACertFile is a PEM file that replaces the system's CAs; "" keeps them.
	CACertFile string

	token func() string
}

// FromEnvironment reads VAULT_ADDR, VAULT_TOKEN, VAULT_CACERT and VAULT_NAMESPACE
// as the vault command does; without VAULT_TOKEN, the file .vault-token that
// `vault login` leaves in the home directory.
func FromEnvironment(getenv func(string) string) (Config, error) {
	c := Config{
		Address:    getenv("VAULT_ADDR"),
		Namespace:  strings.Trim(getenv("VAULT_NAMESPACE"), "/"),
		CACertFile: getenv("VAULT_CACERT"),
	}
	if c.Address == "" {
		return Config{}, errors.New("VAULT_ADDR is not set: export the URL of Vault, such as https://vault.example:8200")
	}
	token := strings.TrimSpace(getenv("VAULT_TOKEN"))
	if token == "" {
		text, err := os.ReadFile(filepath.Join(getenv("HOME"), ".vault-token"))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return Config{}, fmt.Errorf("reading the token of vault login: %w", err)
		}
		token = strings.TrimSpace(string(text))
	}
	if token == "" {
		return Config{}, errors.New("no Vault token: export an administrator's VAULT_TOKEN, or run `vault login`")
	}
	c.token = func() string { return token }
	return c, nil
}

// WithToken returns a copy with another token.
func (c Config) WithToken(token string) Config {
	c.token = func() string { return token }
	return c
}

// Client calls Vault, without retries. It is safe for concurrent use. If Vault
// refuses a call, the error is an [*Error].
type Client struct {
	// A func, because fmt could follow a pointer to the token.
	api    func() *vault.Client
	config Config
}

// Dial returns a Client. Its only I/O is to read the CA file.
func Dial(c Config) (*Client, error) {
	// The daemon's rule: vault-client-go would drop the path, and call another server.
	base, err := config.Check("address", c.Address)
	if err != nil {
		return nil, fmt.Errorf("VAULT_ADDR: %w", err)
	}
	c.Address = base
	tlsConfig := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CACertFile != "" {
		pem, err := os.ReadFile(c.CACertFile)
		if err != nil {
			return nil, fmt.Errorf("VAULT_CACERT: %w", err)
		}
		tlsConfig.RootCAs = x509.NewCertPool()
		if !tlsConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("VAULT_CACERT: %s has no PEM certificate", c.CACertFile)
		}
	}
	api, err := vault.New(
		vault.WithAddress(c.Address),
		vault.WithHTTPClient(&http.Client{
			Transport:     vaultOnly{&http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: tlsConfig, TLSHandshakeTimeout: 10 * time.Second}},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}),
		vault.WithRequestTimeout(timeout),
		// A repeated write could create two tokens.
		vault.WithRetryConfiguration(vault.RetryConfiguration{RetryMax: 0}),
		vault.WithDisableRedirects(),
	)
	if err != nil {
		return nil, errors.New("VAULT_ADDR is not a URL such as https://vault.example:8200")
	}
	if c.token == nil {
		return nil, errors.New("no Vault token")
	}
	if err := api.SetToken(c.token()); err != nil {
		return nil, errors.New("VAULT_TOKEN: the token holds characters that an HTTP header cannot carry")
	}
	if c.Namespace != "" {
		if err := api.SetNamespace(c.Namespace); err != nil {
			return nil, fmt.Errorf("VAULT_NAMESPACE: %q holds characters that an HTTP header cannot carry", c.Namespace)
		}
	}
	return &Client{api: func() *vault.Client { return api }, config: c}, nil
}

// Address returns the URL of Vault.
func (c *Client) Address() string { return c.config.Address }

// Read returns the data at a path without /v1/; nil if there is none. The data may
// hold secrets.
func (c *Client) Read(ctx context.Context, path string) (map[string]any, error) {
	resp, err := c.api().Read(ctx, "/v1/"+path)
	if vault.IsErrorStatus(err, http.StatusNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, c.explain("reading", "read", path, err)
	}
	if resp == nil {
		return nil, nil
	}
	return resp.Data, nil
}

// Write posts to a path without /v1/, and returns the answer's data, which may be
// nil.
func (c *Client) Write(ctx context.Context, path string, body map[string]any) (map[string]any, error) {
	resp, err := c.api().Write(ctx, "/v1/"+path, body)
	if err != nil {
		return nil, c.explain("writing", "update", path, err)
	}
	if resp == nil {
		return nil, nil
	}
	return resp.Data, nil
}
