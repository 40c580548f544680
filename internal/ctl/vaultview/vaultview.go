// SPDX-License-Identifier: Apache-2.0

// Package vaultview looks at a Vault with the plugin's own credential, closer than
// the daemon has a use for. It changes nothing, but for a token that a login makes.
// The daemon never links it.
package vaultview

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/trousseau-io/trousseau/internal/config"
)

// View is a Vault, seen from one address. Its errors never hold what Vault has
// answered. It is not safe for concurrent use.
type View struct {
	address       string
	client        *http.Client
	namespace     string // of the transit engine
	authNamespace string // of the token
	mount         string
	token         config.Secret
	minted        bool // the token is ours, and to be given back
}

// statusError is an answer that is none of those asked for.
type statusError int

func (e statusError) Error() string {
	if e == http.StatusForbidden {
		return "permission denied (403)"
	}
	return fmt.Sprintf("%d %s", int(e), http.StatusText(int(e)))
}

// Denied reports whether Vault denied what was asked.
func Denied(err error) bool { return is(err, http.StatusForbidden) }

// Absent reports whether there is nothing of the name that was asked for.
func Absent(err error) bool { return is(err, http.StatusNotFound) }

func is(err error, status statusError) bool {
	var got statusError
	return errors.As(err, &got) && got == status
}

var errNotVault = errors.New("the answer is not one of Vault's")

// New looks at the Vault that v names, at one of its addresses, with v's token.
// Nothing is asked yet.
func New(v *config.Vault, address string) (*View, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	t, err := ClientTLS(v, u.Hostname())
	if err != nil {
		return nil, err
	}
	return &View{
		address:   address,
		namespace: v.Namespace, authNamespace: v.Credential.Namespace, mount: v.TransitPath,
		token: v.Credential.Token,
		client: &http.Client{
			Transport:     &http.Transport{TLSClientConfig: t, DisableKeepAlives: true},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// Address is the one that is asked.
func (v *View) Address() string { return v.address }

// Bearer is the token that is shown to Vault; zero for none.
func (v *View) Bearer() config.Secret { return v.token }

// Minted reports whether Login has made the token.
func (v *View) Minted() bool { return v.minted }

// maxAnswer bounds what is read of an answer, in bytes.
const maxAnswer = 1 << 20

// ask sends a request and decodes its answer into a struct, unless that is nil.
// It returns the answer's header.
func (v *View) ask(ctx context.Context, method, namespace, path string, body, into any, accepted ...int) (http.Header, error) {
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, v.address+"/v1/"+path, bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	req.Header.Set("X-Vault-Request", "true") // an agent's API proxy may insist on it
	if namespace != "" {
		req.Header.Set("X-Vault-Namespace", namespace)
	}
	if !v.token.IsZero() {
		req.Header.Set("X-Vault-Token", v.token.Reveal())
	}
	resp, err := v.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, err
	}
	expected := resp.StatusCode/100 == 2
	for _, status := range accepted {
		expected = expected || resp.StatusCode == status
	}
	switch {
	case !expected:
		return nil, statusError(resp.StatusCode)
	case into != nil && json.Unmarshal(answer, into) != nil:
		return nil, errNotVault
	}
	return resp.Header, nil
}
