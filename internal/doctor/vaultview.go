// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/trousseau-io/trousseau/internal/config"
)

// vaultView reads more of Vault than the daemon has a use for, from one address.
// What it cannot read it says by a status, never by what Vault has answered.
type vaultView struct {
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

var errNotVault = errors.New("the answer is not one of Vault's")

func view(v *config.Vault, address string) (*vaultView, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	t, err := clientTLS(v, u.Hostname())
	if err != nil {
		return nil, err
	}
	return &vaultView{
		address:   address,
		namespace: v.Namespace, authNamespace: v.Credential.Namespace, mount: v.TransitPath,
		token: v.Credential.Token,
		client: &http.Client{
			Transport:     &http.Transport{TLSClientConfig: t, DisableKeepAlives: true},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// maxAnswer bounds what is read of an answer, in bytes.
const maxAnswer = 1 << 20

// ask sends a request and decodes its answer into a struct, unless that is nil.
// It returns the answer's header.
func (v *vaultView) ask(ctx context.Context, method, namespace, path string, body, into any, accepted ...int) (http.Header, error) {
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

// healthView is sys/health.
type healthView struct {
	Initialized *bool  `json:"initialized"`
	Sealed      bool   `json:"sealed"`
	Standby     bool   `json:"standby"`
	Version     string `json:"version"`
	Enterprise  *bool  `json:"enterprise"` // OpenBao has no such field

	date time.Time     // of the answer; zero if it has none
	took time.Duration // until it was there
}

// product names which of the two answers.
func (h healthView) product() string {
	switch {
	case h.Enterprise == nil:
		return "OpenBao, or a Vault before 1.16"
	case *h.Enterprise:
		return "Vault Enterprise"
	}
	return "Vault"
}

func (v *vaultView) health(ctx context.Context) (h healthView, err error) {
	began := time.Now()
	header, err := v.ask(ctx, http.MethodGet, "", "sys/health?standbyok=true&perfstandbyok=true", nil, &h,
		http.StatusTooManyRequests, 472, 473, http.StatusNotImplemented, http.StatusServiceUnavailable)
	if err != nil {
		return h, err
	}
	h.took = time.Since(began)
	h.date, _ = http.ParseTime(header.Get("Date"))
	if h.Initialized == nil {
		return h, errNotVault
	}
	return h, nil
}

// login exchanges a credential for a token.
func (v *vaultView) login(ctx context.Context, c config.Credential) error {
	body := map[string]string{}
	switch c.Method {
	case config.AppRole:
		body["role_id"], body["secret_id"] = c.RoleID, c.SecretID.Reveal()
	case config.Kubernetes, config.JWT:
		body["jwt"] = c.JWT.Reveal()
		if c.Role != "" {
			body["role"] = c.Role
		}
	}
	var answer struct {
		Auth struct {
			Token string `json:"client_token"`
		} `json:"auth"`
	}
	if _, err := v.ask(ctx, http.MethodPost, v.authNamespace, "auth/"+c.Path+"/login", body, &answer); err != nil {
		return err
	}
	if answer.Auth.Token == "" {
		return errNotVault
	}
	v.token, v.minted = config.NewSecret(answer.Auth.Token), true
	return nil
}

// revoke gives the token of login back. A batch token cannot be: it dies.
func (v *vaultView) revoke(ctx context.Context) {
	_, _ = v.ask(ctx, http.MethodPost, v.authNamespace, "auth/token/revoke-self", struct{}{}, nil)
}

// tokenView is what auth/token/lookup-self says.
type tokenView struct {
	Policies       []string `json:"policies"`
	Identity       []string `json:"identity_policies"`
	Type           string   `json:"type"`
	TTL            int64    `json:"ttl"`
	Expires        *string  `json:"expire_time"`
	Renewable      bool     `json:"renewable"`
	Uses           int      `json:"num_uses"`
	ExplicitMaxTTL int64    `json:"explicit_max_ttl"`
	Period         int64    `json:"period"`
}

func (v *vaultView) lookupSelf(ctx context.Context) (tokenView, error) {
	var answer struct {
		Data *tokenView `json:"data"`
	}
	_, err := v.ask(ctx, http.MethodGet, v.authNamespace, "auth/token/lookup-self", nil, &answer)
	if err == nil && answer.Data == nil {
		err = errNotVault
	}
	if err != nil {
		return tokenView{}, err
	}
	return *answer.Data, nil
}

// capabilities returns what the token may do on each path.
func (v *vaultView) capabilities(ctx context.Context, namespace string, paths []string) (map[string][]string, error) {
	var answer struct {
		Data map[string][]string `json:"data"`
	}
	_, err := v.ask(ctx, http.MethodPost, namespace, "sys/capabilities-self", map[string]any{"paths": paths}, &answer)
	if err == nil && answer.Data == nil {
		err = errNotVault
	}
	return answer.Data, err
}

// keyView is what transit says of a key.
type keyView struct {
	Type                 string                     `json:"type"`
	Derived              bool                       `json:"derived"`
	Exportable           bool                       `json:"exportable"`
	AllowPlaintextBackup bool                       `json:"allow_plaintext_backup"`
	DeletionAllowed      bool                       `json:"deletion_allowed"`
	AutoRotatePeriod     int64                      `json:"auto_rotate_period"`
	Latest               int                        `json:"latest_version"`
	MinDecryption        int                        `json:"min_decryption_version"`
	MinEncryption        int                        `json:"min_encryption_version"`
	SupportsEncryption   *bool                      `json:"supports_encryption"`
	Versions             map[string]json.RawMessage `json:"keys"`
}

func (v *vaultView) key(ctx context.Context, name string) (keyView, error) {
	var answer struct {
		Data *keyView `json:"data"`
	}
	_, err := v.ask(ctx, http.MethodGet, v.namespace, v.mount+"/keys/"+name, nil, &answer)
	if err == nil && (answer.Data == nil || answer.Data.Latest < 1) {
		err = errNotVault
	}
	if err != nil {
		return keyView{}, err
	}
	return *answer.Data, nil
}
