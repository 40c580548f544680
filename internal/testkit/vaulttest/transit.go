// SPDX-License-Identifier: Apache-2.0

package vaulttest

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// transitOp determines the operation of a request to a transit engine. If strict is false there is no such engine:
// only the end of the path is checked, so that the request is counted under its name. OpOther with a name is an
// existing path with another method.
func transitOp(method, rest string, strict bool) (op, name string) {
	segments := strings.Split(rest, "/")
	if !strict {
		segments = segments[max(0, len(segments)-2):]
	}
	var what string
	switch {
	case len(segments) == 2 && segments[1] != "":
		what, name = segments[0], segments[1]
	case len(segments) == 3 && segments[0] == "keys":
		what, name = segments[2], segments[1]
	}
	switch method + " " + what {
	case "POST encrypt":
		return OpEncrypt, name
	case "POST decrypt":
		return OpDecrypt, name
	case "GET keys":
		return OpReadKey, name
	case "POST keys":
		return OpCreateKey, name
	case "DELETE keys":
		return OpDeleteKey, name
	case "POST rotate":
		return OpRotateKey, name
	case "POST config":
		return OpConfigKey, name
	case "POST trim":
		return OpTrimKey, name
	}
	if !slices.Contains([]string{"encrypt", "decrypt", "keys", "rotate", "config", "trim"}, what) {
		return OpOther, ""
	}
	return OpOther, name
}

// job is a parsed request to encrypt or decrypt.
type job struct {
	items   []item
	batch   bool
	derived bool // every item has a context
	partial int  // partial_failure_response_code; 0 means that it is not given
}

// item is one text to encrypt or decrypt: the request itself or an element of its batch_input.
type item struct {
	text           string // plaintext in base64, or ciphertext
	keyVersion     int
	associatedData string
	reference      string
	context        string
}

// outcome is the result of one item.
type outcome struct {
	result  map[string]any
	mistake string // Vault's error text; empty on success
	status  int    // status code for the mistake; 0 if Vault does not count it
}

func failed(status int, mistake string) outcome { return outcome{status: status, mistake: mistake} }

// newJob parses a request (vault, builtin/logical/transit/path_encrypt.go). Field is "plaintext" or "ciphertext".
func newJob(f *fields, field, verb string) (*job, *reply) {
	_, given := f.values[field]
	j := &job{batch: f.has("batch_input"), partial: f.number("partial_failure_response_code")}
	single := item{
		text: f.text(field), keyVersion: f.number("key_version"), associatedData: f.text("associated_data"), context: f.text("context"),
	}
	switch {
	case f.mistake != "":
		return nil, &reply{}
	case j.batch:
		items, mistake := batchItems(f.values["batch_input"], field, verb)
		if mistake != "" {
			return nil, refused(http.StatusInternalServerError, wrapped("failed to parse batch input: "+mistake))
		}
		j.items = items
	case !given, field == "ciphertext" && single.text == "":
		return nil, refused(http.StatusBadRequest, "missing "+field+" to "+verb)
	default:
		j.items = []item{single}
	}
	if len(j.items) == 0 {
		return nil, refused(http.StatusBadRequest, "missing batch input to process")
	}
	j.derived = j.items[0].context != ""
	for _, it := range j.items {
		if j.derived != (it.context != "") {
			return nil, refused(http.StatusBadRequest, "context should be set either in all the request blocks or in none")
		}
	}
	return j, nil
}

// batchItems parses a batch_input. Mistake is Vault's error text, empty if there is none.
func batchItems(raw any, field, verb string) (items []item, mistake string) {
	list, ok := raw.([]any)
	if !ok {
		return nil, fmt.Sprintf("source data must be an array or slice, got %T", raw)
	}
	var mistakes []string
	for i, element := range list {
		given, ok := element.(map[string]any)
		if !ok {
			return nil, fmt.Sprintf("[%d] expected a map, got '%T'", i, element)
		}
		wrong := func(name, kind string) {
			mistakes = append(mistakes, fmt.Sprintf("* '[%d].%s' expected type '%s', got unconvertible type '%T'", i, name, kind, given[name]))
		}
		text := func(name string) string {
			text, ok := given[name].(string)
			// Vault treats null as a missing value, except for the plaintext.
			if _, there := given[name]; !ok && there && (given[name] != nil || name == "plaintext") {
				wrong(name, "string")
			}
			return text
		}
		it := item{text: text(field), associatedData: text("associated_data"), reference: text("reference"), context: text("context")}
		switch version := given["key_version"].(type) {
		case nil:
		case json.Number:
			n, err := version.Int64()
			if err != nil {
				mistakes = append(mistakes, fmt.Sprintf("* error decoding %T into [%d].key_version: "+
					`strconv.ParseInt: parsing "%s": invalid syntax`, version, i, version))
			}
			it.keyVersion = int(n)
		default:
			wrong("key_version", "int")
		}
		if _, given := given[field]; !given {
			mistakes = append(mistakes, fmt.Sprintf("* '[%d].%s' missing %s to %s", i, field, field, verb))
		}
		items = append(items, it)
	}
	if len(mistakes) > 0 {
		slices.Sort(mistakes)
		return nil, fmt.Sprintf("%d error(s) decoding:\n\n%s", len(mistakes), strings.Join(mistakes, "\n"))
	}
	return items, ""
}

// do processes the items and renders the answer. In a batch, a caller's error (400) outranks an internal error
// (500); the body has the results in both cases.
func (j *job) do(kind string, do func(item) outcome) reply {
	status, succeeded := 0, false
	var results []map[string]any
	for _, it := range j.items {
		out := do(it)
		switch {
		case out.mistake == "":
			succeeded = true
		case !j.batch && out.status == http.StatusInternalServerError:
			return refuse(out.status, wrapped(out.mistake))
		case !j.batch:
			return refuse(http.StatusBadRequest, out.mistake)
		case status != http.StatusBadRequest:
			status = cmp.Or(out.status, status)
		}
		if out.result == nil {
			out.result = map[string]any{}
		}
		if out.mistake != "" {
			out.result["error"] = out.mistake
		}
		if j.batch {
			out.result["reference"] = it.reference
		}
		results = append(results, out.result)
	}
	if !j.batch {
		return reply{data: results[0], mount: kind}
	}
	answer := reply{status: status, data: map[string]any{"batch_results": results}, mount: kind}
	if status == 0 {
		return answer
	}
	answer.mount = ""
	switch {
	case !succeeded || j.partial == 0:
	case j.partial < 1 || j.partial > 599:
		answer.warnings = []string{fmt.Sprintf("invalid HTTP response code override from partial_failure_response_code, reverting to %d", status)}
	default:
		answer.status = j.partial
	}
	return answer
}

func (m *mount) encrypt(req *request) reply {
	j, bad := newJob(req.fields, "plaintext", "encrypt")
	if bad != nil {
		return *bad
	}
	k := m.keys[req.name]
	if k == nil {
		// The policy grants "create": Vault creates a missing key.
		k = newKey(req.name, KeyOptions{Derived: j.derived}, req.now)
		m.keys[req.name] = k
	}
	return j.do(m.kind, func(it item) outcome { return k.encrypt(it, req.lag) })
}

func (k *key) encrypt(it item, lag int) outcome {
	plaintext, err := base64.StdEncoding.DecodeString(it.text)
	if err != nil {
		return failed(http.StatusBadRequest, err.Error())
	}
	if out := k.unusable(it, "encryption"); out.mistake != "" {
		return out
	}
	n, latest := it.keyVersion, k.latest(lag)
	mistake := ""
	switch {
	case n == 0:
		n = latest
	case n < 0:
		mistake = "requested version for encryption is negative"
	case n > latest:
		mistake = "requested version for encryption is higher than the latest key version"
	case n < k.minEncryption:
		mistake = "requested version for encryption is less than the minimum encryption key version"
	case n < k.minDecryption:
		// Archived: Vault no longer keeps it in memory.
		mistake = "no such key version"
	}
	if mistake == "" {
		mistake = k.missingContext()
	}
	if mistake != "" {
		return failed(http.StatusBadRequest, mistake)
	}
	aad, out := it.additionalData()
	if out.mistake != "" {
		return out
	}
	sealed, out := k.versions[n-1].material.seal(plaintext, aad)
	if out.mistake != "" {
		return out
	}
	ciphertext := fmt.Sprintf("vault:v%d:%s", n, base64.StdEncoding.EncodeToString(sealed))
	return outcome{result: map[string]any{"ciphertext": ciphertext, "key_version": n}}
}

func (m *mount) decrypt(req *request, secrets *secrets) reply {
	j, bad := newJob(req.fields, "ciphertext", "decrypt")
	if bad != nil {
		return *bad
	}
	k := m.keys[req.name]
	if k == nil {
		return refuse(http.StatusBadRequest, "encryption key not found")
	}
	return j.do(m.kind, func(it item) outcome {
		plaintext, out := k.decrypt(it, req.lag)
		secrets.add(string(plaintext))
		out.result = map[string]any{"plaintext": base64.StdEncoding.EncodeToString(plaintext)}
		return out
	})
}

func (k *key) decrypt(it item, lag int) (plaintext []byte, out outcome) {
	if it.text == "" {
		return nil, failed(http.StatusBadRequest, "missing ciphertext to decrypt")
	}
	if out := k.unusable(it, "decryption"); out.mistake != "" {
		return nil, out
	}
	n, sealed, mistake := k.parse(it.text, lag)
	if mistake == "" {
		mistake = k.missingContext()
	}
	if mistake != "" {
		return nil, failed(http.StatusBadRequest, mistake)
	}
	aad, out := it.additionalData()
	if out.mistake != "" {
		return nil, out
	}
	return k.versions[n-1].material.open(sealed, aad)
}

// parse splits a ciphertext, checking in Vault's order (sdk/helper/keysutil/policy.go, DecryptWithOptions).
// Mistake is Vault's error text, empty if there is none.
func (k *key) parse(ciphertext string, lag int) (n int, sealed []byte, mistake string) {
	fields, ok := strings.CutPrefix(ciphertext, "vault:v")
	if !ok {
		return 0, nil, "invalid ciphertext: no prefix"
	}
	number, encoded, ok := strings.Cut(fields, ":")
	if !ok {
		return 0, nil, "invalid ciphertext: wrong number of fields"
	}
	n, err := strconv.Atoi(number)
	if err != nil {
		return 0, nil, "invalid ciphertext: version number could not be decoded"
	}
	if n == 0 {
		n = 1
	}
	switch {
	case n > k.latest(lag):
		return 0, nil, "invalid ciphertext: version is too new"
	case n < k.minDecryption:
		return 0, nil, "ciphertext or signature version is disallowed by policy (too old)"
	}
	if sealed, err = base64.StdEncoding.DecodeString(encoded); err != nil {
		return 0, nil, "invalid ciphertext: could not decode base64"
	}
	return n, sealed, ""
}

// additionalData decodes the associated data. Vault reports invalid base64 as an internal error.
func (it item) additionalData() ([]byte, outcome) {
	aad, err := base64.StdEncoding.DecodeString(it.associatedData)
	if err != nil {
		return nil, failed(http.StatusInternalServerError, "unable to get associated_data/additional_data from factory[0]: "+err.Error())
	}
	return aad, outcome{}
}
