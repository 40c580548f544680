// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/hashicorp/vault-client-go"

	"github.com/trousseau-io/trousseau/internal/fault"
)

// Query is an API call for which [Client] has no method.
type Query struct {
	// What names the call in errors, such as "looking up the token".
	What string
	// Path is the API path, without /v1/.
	Path string
	// Namespace is the one that Path is in; "" is the root namespace, whatever
	// Config.Namespace says.
	Namespace string
	// Body is JSON to post; nil makes the call a GET.
	Body []byte
	// Anonymous sends no token.
	Anonymous bool
	// Refused says what a refusal means where it is not about a policy, and gives it
	// the class [fault.Denied]; "" if it means nothing.
	Refused string
	// Missing says what a 404 without a reason means, and gives it the class
	// [fault.KeyLost]; "" if it means nothing.
	Missing string
}

// Query makes a call and decodes the data of the answer into what into points to,
// as [json.Unmarshal] does. Vault answers sys/health even if it is sealed or not
// initialized: that is an answer, not an error.
func (c *Client) Query(ctx context.Context, q Query, into any) error {
	// vault.WithNamespace("") would keep the client's namespace.
	headers := vault.WithRequestCallbacks(func(req *http.Request) {
		if q.Anonymous {
			req.Header.Del("X-Vault-Token")
		}
		req.Header.Del("X-Vault-Namespace")
		if q.Namespace != "" {
			req.Header.Set("X-Vault-Namespace", q.Namespace)
		}
	})
	call := call{operation: "query", what: q.What, path: q.Path, body: q.Body, option: headers, refused: q.Refused, missing: q.Missing}
	_, err := ask(ctx, c, call, func(a answer) (any, *fault.Error) {
		if json.Unmarshal(marshal(a.Data), into) != nil {
			return nil, unusable("a field has the wrong type")
		}
		return nil, nil
	})
	return err
}
