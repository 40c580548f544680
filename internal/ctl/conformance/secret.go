// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	kmsapi "k8s.io/kms/apis/v2"

	"github.com/trousseau-io/trousseau/internal/seed"
)

func secretChecks() []Check {
	return []Check{{
		Name: "errors-hide-seed", Group: "secrets", Level: Must,
		Rule:   "No error contains a plaintext or half of one: errors reach kube-apiserver's clients and its log.",
		Source: sourceEnvelope + "TransformFromStorage; " + sourceProbe + "rotateDEKOnKeyIDChange",
		run:    checkErrors,
	}}
}

// checkErrors provokes errors, and looks for plaintexts in them and in the errors of
// all earlier checks.
func checkErrors(ctx context.Context, s *subject) outcome {
	provoke(ctx, s)
	errors, leaks := s.ledger.leaks()
	var found []string
	for _, method := range slices.Sorted(maps.Keys(leaks)) {
		found = append(found, method+" contains it "+leaks[method])
	}
	if len(found) > 0 {
		return broken("Say in errors what is wrong with a request, but never quote it.", "%s", strings.Join(found, ", "))
	}
	return pass("not in %d different errors", errors)
}

func provoke(ctx context.Context, s *subject) {
	// Letters, because any formatting preserves them.
	letters := func() []byte {
		text := []byte(base64.RawURLEncoding.EncodeToString(s.newSeed()))[:32]
		s.ledger.sent(text)
		return text
	}
	for _, times := range []int{1, 64, 2 << 10, 160 << 10} {
		plaintext := bytes.Repeat(letters(), times)
		_, _ = s.main.encrypt(ctx, plaintext)
	}
	for _, method := range []string{kmsapi.KeyManagementService_Encrypt_FullMethodName, "/v2.KeyManagementService/Conformance"} {
		cut := append(field(fieldPlaintext, letters()), fieldUID<<3|2, 100)
		_, _ = s.main.invoke(ctx, method, cut)
	}
	// A plugin may decrypt first, and then find an error.
	plaintext := letters()
	w, err := s.main.encrypt(ctx, plaintext)
	if err != nil {
		return
	}
	for _, f := range slices.Concat(tampered(w), keyIDs(w, map[string]string{"unknown": "another-plugins-key", "none": ""}), oversized(w)) {
		_, _ = s.main.decrypt(ctx, f.wrapped)
	}
	// A ciphertext that is a plaintext.
	_, _ = s.main.decrypt(ctx, seed.Wrapped{KeyID: w.KeyID, Ciphertext: letters(), Annotations: w.Annotations})
}

// ledger records every plaintext that was sent and every error that was returned. It
// is safe for concurrent use.
type ledger struct {
	mu         sync.Mutex
	plaintexts [][]byte
	errors     map[string]map[string]bool // messages, by method
}

func (l *ledger) sent(plaintext []byte) {
	// A shorter one could occur by chance.
	if len(plaintext) < 16 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.plaintexts = append(l.plaintexts, bytes.Clone(plaintext))
}

// intercept records the errors of a connection's calls.
func (l *ledger) intercept(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	err := invoke(ctx, method, req, reply, conn, opts...)
	if err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		name := path.Base(method)
		if l.errors == nil {
			l.errors = make(map[string]map[string]bool)
		}
		if l.errors[name] == nil {
			l.errors[name] = make(map[string]bool)
		}
		l.errors[name][status.Convert(err).Message()] = true
	}
	return err
}

// leaks returns the number of distinct errors, and the methods whose errors contain a
// plaintext, each with the form of the plaintext in it.
func (l *ledger) leaks() (errors int, leaks map[string]string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	texts := make(map[string]string)
	for method, messages := range l.errors {
		errors += len(messages)
		texts[method] = strings.Join(slices.Sorted(maps.Keys(messages)), "\n")
	}
	leaks = make(map[string]string)
	for _, plaintext := range l.plaintexts {
		traces := tracesOf(plaintext)
		for method, text := range texts {
			if form, found := formIn(text, traces); found {
				leaks[method] = form
			}
		}
	}
	return errors, leaks
}

// trace is a text that reveals a secret.
type trace struct{ form, text string }

// tracesOf returns the forms in which either half of a secret may occur in a text.
func tracesOf(secret []byte) []trace {
	var all []trace
	add := func(form string, texts ...string) {
		for _, text := range texts {
			all = append(all, trace{form, text})
		}
	}
	half := len(secret) / 2
	for _, part := range [][]byte{secret[:half], secret[half:]} {
		quoted := strconv.Quote(string(part))
		hexed := hex.EncodeToString(part)
		add("as it is", string(part))
		add("quoted", quoted[1:len(quoted)-1])
		add("in hexadecimal", hexed, strings.ToUpper(hexed))
		add("as a list of numbers", strings.Trim(fmt.Sprint(part), "[]"))
		add("in base64", base64Of(part, base64.RawStdEncoding)...)
		add("in base64", base64Of(part, base64.RawURLEncoding)...)
	}
	return all
}

// formIn returns the form in which text contains one of the traces.
func formIn(text string, traces []trace) (form string, found bool) {
	for _, t := range traces {
		if strings.Contains(text, t.text) {
			return t.form, true
		}
	}
	return "", false
}

// base64Of returns the part of the base64 of any longer text that depends only on
// part: one string for each position in a group of three bytes.
func base64Of(part []byte, encoding *base64.Encoding) []string {
	var texts []string
	for before := range 3 {
		text := encoding.EncodeToString(append(make([]byte, before), part...))
		first := (before*8 + 5) / 6 // the first character that does not depend on earlier bytes
		end := (before + len(part)) * 8 / 6
		texts = append(texts, text[first:end])
	}
	return texts
}
