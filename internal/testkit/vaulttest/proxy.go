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

// proxyTimeout bounds one request through Vault Proxy, including retries (vault, api/client.go).
const proxyTimeout = 60 * time.Second

// proxyRetries is how often Vault Proxy retries a request after no answer, a 5xx, 429 or 412, waiting 1 s, 2 s, 3
// s and so on. The total exceeds proxyTimeout: behind a proxy, a sealed Vault seems to hang.
const proxyRetries = 12

// ProxyOptions configures a Proxy.
type ProxyOptions struct {
	// Listen configures the listener. Now and Join are ignored.
	Listen Options
	// Token describes the tokens obtained by auto-auth.
	Token TokenOptions
}

// Proxy is a Vault Proxy, or a Vault Agent, with an API proxy: it forwards requests to a Vault and adds its own
// token. As a Server it has its own address, faults and counts. The state is that of the Vault behind it; call
// Seal, SetStandby and SetLag on that Vault.
type Proxy struct {
	*Server
	upstream *Server
	options  ProxyOptions

	tokenMu sync.Mutex
	token   Token
}

// forwarder answers requests that reach the front server.
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

// Token returns the proxy's own token. The proxy logs in again when the token has expired or Vault has rejected
// it. The request with the rejected token is answered with Vault's 403.
func (p *Proxy) Token() Token {
	p.tokenMu.Lock()
	defer p.tokenMu.Unlock()
	return p.token
}

// replace logs in, unless another request has already replaced the token.
func (p *Proxy) replace(id string) {
	p.tokenMu.Lock()
	defer p.tokenMu.Unlock()
	if p.token.ID == id {
		p.token = p.upstream.CreateToken(p.options.Token)
	}
}

// forward handles a request as ProxyHandler does (vault, command/agentproxyshared/cache/handler.go).
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
	// The client's certificate is for the proxy, not for Vault.
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

// send retries a request as HashiCorp's Go client does until it has an answer to forward.
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

// withoutToken removes fields that would reveal the proxy's token, and fields unknown to HashiCorp's Go client,
// which the proxy uses.
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
	// The body was just unmarshalled, so it can be marshalled.
	short, _ := json.Marshal(answer)
	return string(short), nil
}
