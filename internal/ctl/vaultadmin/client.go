// SPDX-License-Identifier: Apache-2.0

// Package vaultadmin calls Vault as an administrator does: any path, with a token
// that is not the plugin's. The daemon never links it.
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
)

// timeout bounds one call.
const timeout = 30 * time.Second

// Config says whom to call, and as whom. Formatting it shows no token.
type Config struct {
	// Address is the URL of Vault, without a path.
	Address string
	// Namespace is that of Vault Enterprise; "" for none.
	Namespace string
	// CACertFile is a PEM file that replaces the system's roots; "" keeps them.
	CACertFile string

	token func() string
}

// FromEnvironment reads VAULT_ADDR, VAULT_TOKEN, VAULT_CACERT and VAULT_NAMESPACE
// as the vault command does; without VAULT_TOKEN, the file .vault-token that
// `vault login` leaves in the home directory.
func FromEnvironment(getenv func(string) string) (Config, error) {
	c := Config{
		Address:    strings.TrimRight(getenv("VAULT_ADDR"), "/"),
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
		return Config{}, errors.New("there is no token: export an administrator's VAULT_TOKEN, or run `vault login`")
	}
	c.token = func() string { return token }
	return c, nil
}

// WithToken returns the same with another token.
func (c Config) WithToken(token string) Config {
	c.token = func() string { return token }
	return c
}

// Client calls Vault, once for each call. It is safe for concurrent use. Its
// errors that are Vault's answers are [*Error]s.
type Client struct {
	// A func, because fmt follows pointers in some cases, and to the token.
	api     func() *vault.Client
	config  Config
	address string
}

// Dial makes a Client without any I/O but reading the CA file.
func Dial(c Config) (*Client, error) {
	tlsConfig := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CACertFile != "" {
		pem, err := os.ReadFile(c.CACertFile)
		if err != nil {
			return nil, fmt.Errorf("VAULT_CACERT: %w", err)
		}
		tlsConfig.RootCAs = x509.NewCertPool()
		if !tlsConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("VAULT_CACERT: %s holds no PEM certificate", c.CACertFile)
		}
	}
	api, err := vault.New(
		vault.WithAddress(c.Address),
		vault.WithHTTPClient(&http.Client{
			Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: tlsConfig, TLSHandshakeTimeout: 10 * time.Second},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}),
		vault.WithRequestTimeout(timeout),
		// A write that is made twice could make two tokens.
		vault.WithRetryConfiguration(vault.RetryConfiguration{RetryMax: 0}),
		vault.WithDisableRedirects(),
	)
	if err != nil {
		return nil, fmt.Errorf("VAULT_ADDR: %q is no URL such as https://vault.example:8200", c.Address)
	}
	if c.token == nil {
		return nil, errors.New("there is no token to call vault with")
	}
	if err := api.SetToken(c.token()); err != nil {
		return nil, errors.New("the token holds characters that no HTTP header can carry: see VAULT_TOKEN")
	}
	if c.Namespace != "" {
		if err := api.SetNamespace(c.Namespace); err != nil {
			return nil, fmt.Errorf("VAULT_NAMESPACE: %q holds characters that no HTTP header can carry", c.Namespace)
		}
	}
	return &Client{api: func() *vault.Client { return api }, config: c, address: c.Address}, nil
}

// Address is the URL of Vault.
func (c *Client) Address() string { return c.address }

// Read returns the data at a path without /v1/; nil if Vault has nothing there.
// It may hold secrets.
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
