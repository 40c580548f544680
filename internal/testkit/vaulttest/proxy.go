// SPDX-License-Identifier: Apache-2.0

package vaulttest

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// proxyTimeout bounds what Vault Proxy does for one request, all its attempts together (vault, api/client.go).
const proxyTimeout = 60 * time.Second

// proxyRetries is how often Vault Proxy repeats a request that Vault has not answered, or with a 5xx, 429 or 412, waiting
// 1 s, 2 s, 3 s and so on. Together that is longer than proxyTimeout: behind a proxy a sealed Vault seems to hang.
const proxyRetries = 12

// ProxyOptions configures a Proxy.
type ProxyOptions struct {
	// Listen is where and how it listens. Now and Join are not looked at.
	Listen Options
	// Token describes the tokens that auto-auth logs in for.
	Token TokenOptions
}

// Proxy is a Vault Proxy, or a Vault Agent, with an API proxy: it passes requests on to a Vault with a token of its own.
// As a Server it has an address, faults and counts of its own; the state it reaches is that of the Vault behind it, and
// Seal, SetStandby and SetLag must be told to that.
type Proxy struct {
	*Server
	upstream *Server
	options  ProxyOptions

	tokenMu sync.Mutex
	token   Token
}

// forwarder answers requests that reach front.
type forwarder func(front *Server, r *http.Request, body []byte) rendered

// NewProxy starts a proxy in front of a server. The caller must Close it.
func NewProxy(upstream *Server, options ProxyOptions) (*Proxy, error) {
	p := &Proxy{upstream: upstream, options: options}
	p.replace("")
	listen := options.Listen
	listen.Join = upstream
	var err error
	if p.Server, err = newServer(listen, p.forward); err != nil {
		return nil, err
	}
	return p, nil
}

// Token is the proxy's own token. The proxy logs in again when the token has expired or when Vault has called it invalid.
// The request that met the invalid token is answered with Vault's 403.
func (p *Proxy) Token() Token {
	p.tokenMu.Lock()
	defer p.tokenMu.Unlock()
	return p.token
}

// replace logs in, unless another request has already replaced this token.
func (p *Proxy) replace(id string) {
	p.tokenMu.Lock()
	defer p.tokenMu.Unlock()
	if p.token.ID == id {
		p.token = p.upstream.CreateToken(p.options.Token)
	}
}

// forward serves a request as ProxyHandler does (vault, command/agentproxyshared/cache/handler.go).
func (p *Proxy) forward(front *Server, r *http.Request, body []byte) rendered {
	if values := r.Header.Values("X-Vault-Request"); len(values) != 1 || values[0] != "true" {
		return refuse(http.StatusPreconditionFailed, `missing "X-Vault-Request" header`).render()
	}
	if id := p.Token().ID; p.upstream.store.expired(id) {
		p.replace(id)
	}
	own := p.Token().ID
	out := r.Clone(r.Context())
	if r.Header.Get("X-Vault-Token") == "" {
		out.Header.Set("X-Vault-Token", own)
	}
	// A client's certificate is the proxy's to see, not Vault's.
	if out.TLS = nil; p.upstream.pki != nil {
		out.TLS = &tls.ConnectionState{}
	}
	answer, err := p.send(front, out, body)
	if err != nil {
		return refuse(http.StatusInternalServerError, "failed to get the response: "+err.Error()).render()
	}
	if out.Header.Get("X-Vault-Token") == own {
		switch {
		case answer.status == http.StatusForbidden && strings.Contains(answer.body, "invalid token"):
			p.replace(own)
		case answer.status == http.StatusOK && tellsToken(r.URL.Path):
			if answer.body, err = withoutToken(answer.body); err != nil {
				return refuse(http.StatusInternalServerError, "failed to process token lookup response: failed to parse token lookup response: "+err.Error()).render()
			}
		}
	}
	return answer
}

func tellsToken(path string) bool {
	return strings.HasSuffix(path, "/auth/token/lookup-self") || strings.HasSuffix(path, "/auth/token/renew-self")
}

// send repeats a request as HashiCorp's Go client does until it has an answer to pass on.
func (p *Proxy) send(front *Server, r *http.Request, body []byte) (rendered, error) {
	ctx, cancel := context.WithTimeout(r.Context(), proxyTimeout)
	defer cancel()
	for retries := 0; ; retries++ {
		answer, err := p.try(r.Clone(ctx), body)
		switch {
		case r.Context().Err() != nil:
			// The client has gone.
			panic(http.ErrAbortHandler)
		case ctx.Err() != nil:
			return rendered{}, ctx.Err()
		case err == nil && !retryable(answer.status), retries == proxyRetries:
			return answer, err
		}
		pause := time.NewTimer(time.Duration(retries+1) * time.Second)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
		case <-front.stopped():
			pause.Stop()
			panic(http.ErrAbortHandler)
		}
	}
}

func (p *Proxy) try(r *http.Request, body []byte) (rendered, error) {
	r.Body = io.NopCloser(bytes.NewReader(body))
	answer, err := p.upstream.RoundTripper().RoundTrip(r)
	if err != nil {
		return rendered{}, err
	}
	defer func() { _ = answer.Body.Close() }()
	content, err := io.ReadAll(answer.Body)
	return rendered{status: answer.StatusCode, body: string(content), header: answer.Header}, err
}

func retryable(status int) bool {
	return status == http.StatusPreconditionFailed || status == http.StatusTooManyRequests ||
		status >= http.StatusInternalServerError && status != http.StatusNotImplemented
}

// withoutToken takes out of an answer what would give the proxy's token away, and what HashiCorp's Go client, through
// which such an answer has gone, does not know.
func withoutToken(body string) (string, error) {
	decoder := json.NewDecoder(strings.NewReader(body))
	decoder.UseNumber()
	var answer map[string]any
	if err := decoder.Decode(&answer); err != nil {
		return "", err
	}
	for name, what := range answer {
		if what == nil && (name == "auth" || name == "wrap_info") {
			delete(answer, name)
		}
	}
	if data, ok := answer["data"].(map[string]any); ok {
		delete(data, "id")
		delete(data, "accessor")
	}
	if auth, ok := answer["auth"].(map[string]any); ok {
		auth["client_token"], auth["accessor"], auth["identity_policies"] = "", "", nil
		delete(auth, "token_type")
		delete(auth, "num_uses")
	}
	// What has just been unmarshalled marshals.
	short, _ := json.Marshal(answer)
	return string(short), nil
}
