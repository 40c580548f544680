// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/trousseau-io/trousseau/internal/fault"
	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
	"github.com/trousseau-io/trousseau/internal/vault"
)

// marker is part of every body of the malicious server, so that a quoted answer is noticed even if it contains no
// secret.
const marker = "MARKER"

// recordHeader forwards requests and records a header of each.
func recordHeader(name string, into chan<- []string) func(string, http.ResponseWriter, *http.Request) bool {
	return func(_ string, _ http.ResponseWriter, r *http.Request) bool {
		into <- r.Header.Values(name)
		return false
	}
}

// echo answers with everything it has received: token, plaintext or ciphertext.
func echo(status int, format string) func(string, http.ResponseWriter, *http.Request) bool {
	return func(_ string, w http.ResponseWriter, r *http.Request) bool {
		body, _ := io.ReadAll(r.Body)
		sent := marker + " " + r.Header.Get("X-Vault-Token") + " " + string(body)
		quoted, _ := json.Marshal(sent)
		w.Header().Set("Location", "http://"+r.Host+"/"+r.Header.Get("X-Vault-Token")+"/"+marker)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, strings.NewReplacer("%s", sent, "%q", string(quoted)).Replace(format))
		return true
	}
}

func TestErrorsQuoteNothing(t *testing.T) {
	formats := map[string]string{
		"page":         "<html>%s</html>",
		"errors":       `{"errors":[%q]}`,
		"error":        `{"error":%q}`,
		"empty errors": `{"errors":[], "x":%q}`,
		"strange data": `{"data":{"ciphertext":%q,"plaintext":%q,"expire_time":%q,"type":%q,"latest_version":1,"keys":{%q:1}}}`,
		"strange type": `{"data":{"ciphertext":{%q:1},"type":%q,"latest_version":1,"keys":{}}}`,
		"results":      `{"data":{"batch_results":[{"error":%q,"plaintext":%q},{"ciphertext":%q,"plaintext":%q}]}}`,
		"wrong type":   `{"data":%q}`,
		"cut off":      `{"data":{"x":%q`,
	}
	s := vaulttest.Start(t)
	s.CreateKey("kek")
	c := dial(t, s, nil)
	for name, format := range formats {
		for _, status := range []int{200, 201, 204, 301, 303, 307, 308, 400, 401, 403, 404, 405, 412, 418, 429, 500, 502, 503} {
			remove := s.Intercept(echo(status, format))
			_, _, encryptErr := c.Encrypt(bounded(t), "kek", 1, []byte("a very secret seed"), nil)
			_, decryptErr := c.Decrypt(bounded(t), "kek", []byte("vault:v1:AAAA"), nil)
			encryptAllErr := batchError(c.EncryptBatch(bounded(t), "kek", []vault.Item{{Data: []byte("a very secret seed")}, {Version: 1}}))
			decryptAllErr := batchError(c.DecryptBatch(bounded(t), "kek", []vault.Item{{Data: []byte("vault:v1:AAAA")}, {}}))
			_, readErr := c.ReadKey(bounded(t), "kek")
			_, lookupErr := c.LookupSelf(bounded(t))
			for call, err := range map[string]error{"encrypt": encryptErr, "decrypt": decryptErr, "encrypt batch": encryptAllErr, "decrypt batch": decryptAllErr, "read": readErr, "lookup": lookupErr} {
				// A lookup without an expiry belongs to a token that never expires.
				if err == nil && call != "lookup" {
					t.Errorf("%s, %d %s: got no error", call, status, name)
				}
				wantSecretFree(t, s, err)
			}
			remove()
		}
	}
}

// batchError returns the error of a batch, or those of its items if all have failed.
func batchError(outcomes []vault.Outcome, err error) error {
	for _, o := range outcomes {
		if o.Err == nil {
			return nil
		}
		err = errors.Join(err, o.Err)
	}
	return err
}

func TestBrokenTransportQuotesNothing(t *testing.T) {
	s := vaulttest.Start(t)
	c := dial(t, s, nil)
	for name, raw := range map[string]string{
		"protocol":    "SSH-2.0-%s\r\n\r\n",
		"status":      "HTTP/1.1 %s OK\r\n\r\n",
		"header":      "HTTP/1.1 200 OK\r\n%s\r\n\r\n",
		"length":      "HTTP/1.1 200 OK\r\nContent-Length: %s\r\n\r\n",
		"encoding":    "HTTP/1.1 200 OK\r\nTransfer-Encoding: %s\r\n\r\n",
		"chunk":       "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%s\r\n",
		"status text": "HTTP/1.1 500 %s\r\nContent-Length: 0\r\n\r\n",
		"location":    "HTTP/1.1 307 Moved\r\nLocation: http://[%s\r\nContent-Length: 0\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			remove := s.Intercept(func(_ string, w http.ResponseWriter, r *http.Request) bool {
				conn, _, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					return true
				}
				defer func() { _ = conn.Close() }()
				_, _ = io.WriteString(conn, strings.ReplaceAll(raw, "%s", marker+r.Header.Get("X-Vault-Token")))
				return true
			})
			defer remove()
			err := encrypt(bounded(t), c)
			if got := fault.ClassOf(err); got != fault.Unavailable {
				t.Errorf("got class %q, want %q", got, fault.Unavailable)
			}
			wantSecretFree(t, s, err)
		})
	}
}

// wantSecretFree prints a value in every way that a log might.
func wantSecretFree(t *testing.T, s *vaulttest.Server, v any) {
	t.Helper()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x"} {
		text := fmt.Sprintf(verb, v)
		if secret, found := s.Leak(text); found {
			t.Errorf("%s holds the secret %q: %s", verb, secret, text)
		}
		if strings.Contains(text, marker) {
			t.Errorf("%s quotes the answer: %s", verb, text)
		}
	}
}

func TestClientPrintsNoToken(t *testing.T) {
	s := vaulttest.Start(t, vaulttest.Options{TLS: true})
	s.CreateKey("kek")
	c := dial(t, s, nil)
	if err := encrypt(bounded(t), c); err != nil {
		t.Fatal(err)
	}
	wantSecretFree(t, s, c)
	wantSecretFree(t, s, *c)
	wantSecretFree(t, s, struct{ Client *vault.Client }{c})
	wantSecretFree(t, s, &struct{ client *vault.Client }{c})
	self, err := c.LookupSelf(bounded(t))
	if err != nil {
		t.Fatal(err)
	}
	wantSecretFree(t, s, self)
	encoded, err := json.Marshal(c) //nolint:staticcheck // SA9005: the test checks that nothing is exported
	if err != nil {
		t.Fatal(err)
	}
	wantSecretFree(t, s, string(encoded))
}
