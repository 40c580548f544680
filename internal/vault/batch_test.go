// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/trousseau-io/trousseau/internal/fault"
	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
	"github.com/trousseau-io/trousseau/internal/vault"
)

// Every item has its own version and associated data, and gets its own result in one call.
func TestBatch(t *testing.T) {
	s := vaulttest.Start(t, vaulttest.Options{TLS: true})
	s.CreateKey("kek").Rotate()
	c := dial(t, s, nil)
	plain := []vault.Item{
		{Data: []byte("newest")},
		{Data: []byte("pinned to the old one"), Version: 1},
		{Data: []byte("pinned and bound"), Version: 1, AssociatedData: []byte("cluster-a")},
		{Data: []byte("bound to other data"), Version: 2, AssociatedData: []byte("cluster-b")},
		{Data: []byte("newest")}, // a second time
		{Data: []byte{}},
		{Data: []byte("\x00\xff\n\"<>"), AssociatedData: []byte("\x00\xff\n\"<>")},
		{Data: bytes.Repeat([]byte("k"), 100<<10)},
	}
	encrypted, err := c.EncryptBatch(bounded(t), "kek", plain)
	if err != nil {
		t.Fatal(err)
	}
	wrapped := make([]vault.Item, len(plain))
	for i, o := range encrypted {
		if o.Err != nil {
			t.Fatalf("item %d: %v", i, o.Err)
		}
		want := plain[i].Version
		if want == 0 {
			want = 2
		}
		if got, _ := vault.CiphertextVersion(o.Data); got != want {
			t.Errorf("item %d: got version %d, want %d", i, got, want)
		}
		wrapped[i] = vault.Item{Data: o.Data, AssociatedData: plain[i].AssociatedData}
	}
	if bytes.Equal(wrapped[0].Data, wrapped[4].Data) {
		t.Error("two items share a ciphertext")
	}
	decrypted, err := c.DecryptBatch(bounded(t), "kek", wrapped)
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range decrypted {
		if o.Err != nil || !bytes.Equal(o.Data, plain[i].Data) {
			t.Errorf("item %d: got %.20q, %v; want %.20q", i, o.Data, o.Err, plain[i].Data)
		}
		// The single form reads what the batch has written.
		if got, err := c.Decrypt(bounded(t), "kek", wrapped[i].Data, wrapped[i].AssociatedData); err != nil || !bytes.Equal(got, plain[i].Data) {
			t.Errorf("item %d, alone: got %.20q, %v", i, got, err)
		}
	}
	if e, d := s.Count(vaulttest.OpEncrypt), s.Count(vaulttest.OpDecrypt); e != 1 || d != 1+len(plain) {
		t.Errorf("got %d and %d calls", e, d)
	}
}

// An item that fails does not fail the others, and its error is that of a call for it alone.
func TestBatchItemFailsAlone(t *testing.T) {
	s := vaulttest.Start(t)
	k := s.CreateKey("kek")
	s.CreateKey("other")
	for _, kind := range []string{"rsa-2048", "ed25519", "chacha20-poly1305"} {
		s.CreateKeyWith(kind, vaulttest.KeyOptions{Type: kind})
	}
	s.CreateKeyWith("derived", vaulttest.KeyOptions{Derived: true})
	c := dial(t, s, func(cfg *vault.Config) {
		cfg.Credential = vault.Given(s.KMSToken("kek", "other", "rsa-2048", "ed25519", "chacha20-poly1305", "derived"))
	})
	made := func(key string, version int, data string) string {
		t.Helper()
		ciphertext, _, err := c.Encrypt(bounded(t), key, version, []byte("seed"), []byte(data))
		if err != nil {
			t.Fatal(err)
		}
		return string(ciphertext)
	}
	k.Rotate()
	k.Rotate()
	old, bound, good, foreign := made("kek", 1, ""), made("kek", 2, "a"), made("kek", 3, ""), made("other", 1, "")
	k.SetMinDecryptionVersion(2)
	k.SetMinEncryptionVersion(3)
	item := func(data, associated string, version int) vault.Item {
		return vault.Item{Data: []byte(data), AssociatedData: []byte(associated), Version: version}
	}
	zeros := "vault:v1:" + strings.Repeat("A", 40)
	tests := map[string]struct {
		key     string
		decrypt bool
		items   []vault.Item
		want    []fault.Class
	}{
		"decrypt": {"kek", true, []vault.Item{
			item(good, "", 0), item(bound, "a", 0), item(bound, "", 0), item(bound, "b", 0), item(good, "a", 0),
			item(strings.Replace(foreign, "v1", "v3", 1), "", 0), item(old, "", 0), item("vault:v4:AAAA", "", 0),
			item("", "", 0), item("x", "", 0), item("vault:v3", "", 0), item("vault:vx:AAAA", "", 0), item("vault:v3:!", "", 0),
			item("vault:v3:AAAA", "", 0), item(good, "", 0),
		}, []fault.Class{
			"", "", fault.Invalid, fault.Invalid, fault.Invalid, fault.Invalid, fault.VersionTooOld, fault.VersionTooNew,
			fault.Invalid, fault.Invalid, fault.Invalid, fault.Invalid, fault.Invalid, fault.Invalid, "",
		}},
		"encrypt": {"kek", false, []vault.Item{
			item("x", "", 0), item("x", "", 2), item("x", "", 4), item("x", "a", 3), item("x", "", 1),
		}, []fault.Class{"", fault.VersionTooOld, fault.VersionTooNew, "", fault.VersionTooOld}},
		"chacha20": {"chacha20-poly1305", true, []vault.Item{item(made("chacha20-poly1305", 1, ""), "", 0), item(zeros, "", 0)}, []fault.Class{"", fault.Invalid}},
		// Vault answers 500 for a batch with such an item, and 200 for one with associated data.
		"RSA":                  {"rsa-2048", true, []vault.Item{item(made("rsa-2048", 1, ""), "", 0), item(zeros, "", 0)}, []fault.Class{"", fault.KeyUnusable}},
		"RSA, encrypt, bound":  {"rsa-2048", false, []vault.Item{item("x", "a", 0), item("x", "", 0)}, []fault.Class{fault.KeyUnusable, ""}},
		"RSA, decrypt, bound":  {"rsa-2048", true, []vault.Item{item(zeros, "a", 0), item(zeros, "a", 0)}, []fault.Class{fault.KeyUnusable, fault.KeyUnusable}},
		"ed25519, encrypt":     {"ed25519", false, []vault.Item{item("x", "", 0), item("x", "a", 0)}, []fault.Class{fault.KeyUnusable, fault.KeyUnusable}},
		"ed25519, decrypt":     {"ed25519", true, []vault.Item{item(zeros, "", 0), item(zeros, "a", 0)}, []fault.Class{fault.KeyUnusable, fault.KeyUnusable}},
		"derived key, encrypt": {"derived", false, []vault.Item{item("x", "", 0), item("x", "a", 0)}, []fault.Class{fault.KeyUnusable, fault.KeyUnusable}},
		"derived key, decrypt": {"derived", true, []vault.Item{item(zeros, "", 0), item("x", "", 0)}, []fault.Class{fault.KeyUnusable, fault.Invalid}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			call := c.EncryptBatch
			if test.decrypt {
				call = c.DecryptBatch
			}
			s.ResetCounts()
			got, err := call(bounded(t), test.key, test.items)
			if err != nil || len(got) != len(test.items) {
				t.Fatalf("got %d outcomes, %v", len(got), err)
			}
			if calls := s.Total(); calls != 1 {
				t.Errorf("got %d calls, want 1", calls)
			}
			for i, o := range got {
				if class := fault.ClassOf(o.Err); class != test.want[i] {
					t.Errorf("item %d: got class %q, want %q (%v)", i, class, test.want[i], o.Err)
				}
				if o.Err != nil && o.Data != nil {
					t.Errorf("item %d: got %q with an error", i, o.Data)
				}
				var alone error
				if test.decrypt {
					_, alone = c.Decrypt(bounded(t), test.key, test.items[i].Data, test.items[i].AssociatedData)
				} else {
					_, _, alone = c.Encrypt(bounded(t), test.key, test.items[i].Version, test.items[i].Data, test.items[i].AssociatedData)
				}
				if fmt.Sprint(o.Err) != fmt.Sprint(alone) {
					t.Errorf("item %d:\n  got %v\nalone %v", i, o.Err, alone)
				}
				wantSecretFree(t, s, o.Err)
			}
		})
	}
}

// TestWordsOfAnItem gives an item everything that TestWordsOfTheKey gives a call, with each status of a batch.
func TestWordsOfAnItem(t *testing.T) {
	s := vaulttest.Start(t)
	c := dial(t, s, nil)
	for _, status := range []int{200, 400, 500} {
		for _, word := range wordsOfTheKey {
			remove := s.Intercept(answer(status, fmt.Sprintf(`{"data":{"batch_results":[{"ciphertext":"vault:v1:AAAA"},{"error":%q}]}}`, word.text)))
			got, err := c.EncryptBatch(bounded(t), "kek", make([]vault.Item, 2))
			remove()
			if err != nil || got[0].Err != nil || fault.ClassOf(got[1].Err) != word.class {
				t.Errorf("%d %s: got %v, %v, want class %q", status, word.text, got, err, word.class)
			}
		}
	}
}

// Each row is an answer to a batch of two, with what it means for both: for the whole call, or for each item.
func TestBatchAnswers(t *testing.T) {
	const (
		page    = "the answer is not Vault's: %d %s; check for a proxy, a firewall or another server at this address"
		denied  = `permission denied (403): the token is expired or revoked, or its policy lacks "update" on transit/%s/kek`
		foreign = "the response is not from Vault; check what listens at this address"
		unknown = "vault refused this item of a batch for a reason that trousseau does not know; see Vault's audit log"
		none    = "unexpected response from Vault: %d results for a batch of 2"
		empty   = "unexpected response from Vault: no data"
	)
	good := func(op string) string {
		if op == vaulttest.OpEncrypt {
			return `{"ciphertext":"vault:v1:AAAA"}`
		}
		return `{"plaintext":"AAAA"}`
	}
	bad := map[string]string{
		vaulttest.OpEncrypt: "unexpected response from Vault: the ciphertext does not begin with vault:v<version>:",
		vaulttest.OpDecrypt: "unexpected response from Vault: no plaintext",
	}
	// GOOD stands for the result of an item that succeeded, BAD for the text about one without a result.
	results := func(second string) string { return `{"data":{"batch_results":[GOOD,` + second + `]}}` }
	tests := map[string]struct {
		status  int
		body    string
		class   fault.Class
		text    string
		refused bool // the batch as such may be
		alone   bool // it is the second item's failure
	}{
		"400, results":        {400, results(`{"error":"invalid ciphertext: no prefix"}`), fault.Invalid, "not a valid transit ciphertext", false, true},
		"500, results":        {500, results(`{"error":"something internal"}`), fault.Unavailable, unknown, false, true},
		"200, item error":     {200, results(`{"error":"something new"}`), fault.Unavailable, unknown, false, true},
		"207, item error":     {207, results(`{"error":"something new"}`), fault.Unavailable, unknown, false, true},
		"error, and a result": {200, results(`{"ciphertext":"vault:v1:AAAA","plaintext":"AAAA","error":"something new"}`), fault.Unavailable, unknown, false, true},
		"error is a number":   {200, results(`{"ciphertext":"vault:v1:AAAA","plaintext":"AAAA","error":1}`), fault.Unavailable, unknown, false, true},
		"nothing":             {200, results(`{}`), fault.Unavailable, "BAD", false, true},
		"null":                {200, results(`null`), fault.Unavailable, "BAD", false, true},
		"a text":              {200, results(`"vault:v1:AAAA"`), fault.Unavailable, "BAD", false, true},
		"a list":              {200, results(`["vault:v1:AAAA"]`), fault.Unavailable, "BAD", false, true},
		"numbers":             {200, results(`{"ciphertext":1,"plaintext":1}`), fault.Unavailable, "BAD", false, true},

		"a single result":     {200, `{"data":{"ciphertext":"vault:v1:AAAA","plaintext":"AAAA"}}`, fault.Unavailable, fmt.Sprintf(none, 0), true, false},
		"one result":          {200, `{"data":{"batch_results":[GOOD]}}`, fault.Unavailable, fmt.Sprintf(none, 1), true, false},
		"three results":       {200, `{"data":{"batch_results":[GOOD,GOOD,GOOD]}}`, fault.Unavailable, fmt.Sprintf(none, 3), true, false},
		"results are a text":  {200, `{"data":{"batch_results":"x"}}`, fault.Unavailable, fmt.Sprintf(none, 0), true, false},
		"results are null":    {200, `{"data":{"batch_results":null}}`, fault.Unavailable, fmt.Sprintf(none, 0), true, false},
		"400, one result":     {400, `{"data":{"batch_results":[{"error":"no such key version"}]}}`, fault.Unavailable, fmt.Sprintf(none, 1), true, false},
		"400, null results":   {400, `{"data":{"batch_results":null}}`, fault.Unavailable, fmt.Sprintf(page, 400, "Bad Request"), true, false},
		"400, results, error": {400, `{"errors":["x"],"data":{"batch_results":[GOOD,GOOD]}}`, fault.Unavailable, "vault refused the request (400) for a reason that trousseau does not know; see Vault's audit log", true, false},
		"400, unknown":        {400, `{"errors":["batch_input is not supported"]}`, fault.Unavailable, "vault refused the request (400) for a reason that trousseau does not know; see Vault's audit log", true, false},
		"400, an old server":  {400, `{"errors":["missing ciphertext to decrypt"]}`, fault.Invalid, "not a valid transit ciphertext", true, false},
		"400, key lost":       {400, `{"errors":["encryption key not found"]}`, fault.KeyLost, "the key does not exist", true, false},
		"400, page":           {400, "<html>", fault.Unavailable, fmt.Sprintf(page, 400, "Bad Request"), true, false},
		"403":                 {403, `{"errors":["1 error occurred:\n\t* permission denied\n\n"]}`, fault.Denied, denied, true, false},
		"403, page":           {403, "<html>", fault.Unavailable, fmt.Sprintf(page, 403, "Forbidden"), true, false},
		"413":                 {413, "<html>", fault.Unavailable, fmt.Sprintf(page, 413, "Request Entity Too Large"), true, false},
		"413, Vault's":        {413, `{"errors":["request body too large"]}`, fault.Unavailable, fmt.Sprintf(page, 413, "Request Entity Too Large"), true, false},

		"404":            {404, `{"errors":["no handler for route \"transit/encrypt/kek\". route entry not found."]}`, fault.Unavailable, "nothing is mounted at this path (404); check the address, namespace and mount", false, false},
		"412":            {412, `{"errors":["required index state not present"]}`, fault.Unavailable, "this Vault node is behind in replication (412)", false, false},
		"429":            {429, `{"errors":["request path \"transit/encrypt/kek\": rate limit quota exceeded"]}`, fault.Throttled, "rate limit exceeded (429)", false, false},
		"500":            {500, `{"errors":["1 error occurred:\n\t* internal error\n\n"]}`, fault.Unavailable, "vault answered 500 Internal Server Error", false, false},
		"502":            {502, "<html>", fault.Unavailable, "vault answered 502 Bad Gateway", false, false},
		"503, sealed":    {503, `{"errors":["Vault is sealed"]}`, fault.Sealed, "vault is sealed or has no active node (503)", false, false},
		"200, page":      {200, "<html>", fault.Unavailable, foreign, false, false},
		"200, empty":     {200, "", fault.Unavailable, empty, false, false},
		"200, null data": {200, `{"data":null}`, fault.Unavailable, empty, false, false},
		"200, too large": {200, results(`{"x":"` + strings.Repeat("x", 1<<20) + `"}`), fault.Unavailable, "the response is larger than 1048576 bytes", false, false},
		// Nothing is known of the batch.
		"400, too large": {400, results(`{"x":"` + strings.Repeat("x", 1<<20) + `"}`), fault.Unavailable, fmt.Sprintf(page, 400, "Bad Request"), false, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := vaulttest.Start(t)
			for op, doing := range map[string]string{vaulttest.OpEncrypt: "encrypting", vaulttest.OpDecrypt: "decrypting"} {
				c := dial(t, s, nil)
				s.ResetCounts()
				remove := s.Intercept(answer(test.status, strings.NewReplacer("GOOD", good(op)).Replace(test.body)))
				got, err := callBatch(bounded(t), c, op, make([]vault.Item, 2))
				remove()
				text := test.text
				switch text {
				case "BAD":
					text = bad[op]
				case denied:
					text = fmt.Sprintf(denied, op)
				}
				if test.alone {
					if err != nil || len(got) != 2 || got[0].Err != nil {
						t.Fatalf("%s: got %v, %v", op, got, err)
					}
					err = got[1].Err
				} else if got != nil {
					t.Errorf("%s: got outcomes with an error", op)
				}
				wantError(t, c, err, test.class, doing+" with transit/kek at ADDRESS: "+text)
				if refused := isRefused(err); refused != test.refused {
					t.Errorf("%s: got refused %v, want %v", op, refused, test.refused)
				}
				if calls := s.Total(); calls != 1 {
					t.Errorf("%s: got %d calls, want 1", op, calls)
				}
			}
		})
	}
}

// An answer that breaks off says nothing of the batch as such, whatever its status.
func TestBatchBrokenOff(t *testing.T) {
	for _, status := range []int{200, 400, 403, 500} {
		s := vaulttest.Start(t)
		c := dial(t, s, nil)
		s.Intercept(func(_ string, w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Length", "1000")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, `{"data":{"batch_results":[{"plaintext":"`)
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		})
		got, err := callBatch(bounded(t), c, vaulttest.OpDecrypt, make([]vault.Item, 2))
		if got != nil || fault.ClassOf(err) != fault.Unavailable || isRefused(err) {
			t.Errorf("%d: got %v, %v, refused %v", status, got, err, isRefused(err))
		}
	}
}

func TestBatchEnds(t *testing.T) {
	for name, test := range map[string]struct {
		begin func(context.Context) (context.Context, context.CancelFunc)
		class fault.Class
		text  string
	}{
		"timeout": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, 3*time.Second)
		}, fault.Timeout, "vault did not answer in time"},
		"canceled": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			time.AfterFunc(time.Second, cancel)
			return ctx, cancel
		}, fault.Canceled, "canceled by the caller"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := vaulttest.Start(t, vaulttest.Options{InProcess: true})
				c := dial(t, s, func(cfg *vault.Config) { cfg.Transport = s.RoundTripper() })
				s.Hang()
				ctx, cancel := test.begin(t.Context())
				defer cancel()
				got, err := callBatch(ctx, c, vaulttest.OpEncrypt, make([]vault.Item, 2))
				wantError(t, c, err, test.class, "encrypting with transit/kek at ADDRESS: "+test.text)
				if got != nil || isRefused(err) || s.Total() != 1 {
					t.Errorf("got %v, refused %v, %d calls", got, isRefused(err), s.Total())
				}
			})
		})
	}
}

// The metrics count calls: a batch is one, and it is ok if Vault has answered for each item.
func TestBatchMetrics(t *testing.T) {
	s := vaulttest.Start(t)
	s.CreateKey("kek")
	reg := prometheus.NewPedanticRegistry()
	c := dial(t, s, func(cfg *vault.Config) { cfg.Metrics = vault.NewMetrics(reg) })
	if _, err := c.DecryptBatch(bounded(t), "kek", make([]vault.Item, 3)); err != nil {
		t.Fatal(err)
	}
	s.Throttle()
	if _, err := c.DecryptBatch(bounded(t), "kek", make([]vault.Item, 3)); err == nil {
		t.Fatal("got no error")
	}
	const want = `
		# HELP trousseau_vault_requests_total Calls to Vault, by operation and code (ok or the error class).
		# TYPE trousseau_vault_requests_total counter
		trousseau_vault_requests_total{code="ok",operation="decrypt"} 1
		trousseau_vault_requests_total{code="throttled",operation="decrypt"} 1
	`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "trousseau_vault_requests_total"); err != nil {
		t.Error(err)
	}
}

func callBatch(ctx context.Context, c *vault.Client, op string, items []vault.Item) ([]vault.Outcome, error) {
	if op == vaulttest.OpEncrypt {
		return c.EncryptBatch(ctx, "kek", items)
	}
	return c.DecryptBatch(ctx, "kek", items)
}

func isRefused(err error) bool {
	var refused *vault.BatchRefused
	return errors.As(err, &refused)
}
