// SPDX-License-Identifier: Apache-2.0

// Package vaultsuite holds one set of conversations with a Vault and checks every answer: status code, error texts and
// the fields that Trousseau reads. It speaks plain HTTP, so it cannot tell the fake in vaulttest from a real server.
// `make test` runs it against the fake, `make e2e` against HashiCorp Vault: this keeps the fake faithful.
//
// The conversations are the files in cases/. README.md there describes their format.
package vaultsuite

import (
	"embed"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

//go:embed cases
var cases embed.FS

// Server is a Vault to talk to. It must be unsealed and serve HTTPS. Each Run needs a fresh one.
type Server struct {
	// URL is the address: scheme, host and port.
	URL string
	// CA is the PEM certificate that the server's certificate is verified with.
	CA []byte
	// RootToken is a root token.
	RootToken string
	// Seal and Unseal change the seal. Unseal returns once the server serves again.
	Seal, Unseal func()
	// Prepare replaces a "prepare" block of that name, for a server that is prepared in Go instead of over HTTP.
	// The function gets the variables and may add to them.
	Prepare map[string]func(vars map[string]string)
}

// eventually bounds how long "until" repeats a request.
const eventually = 10 * time.Second

// Run plays all conversations and fails the test if an answer differs from Vault's.
func Run(t *testing.T, s Server) {
	parties := newParties(t)
	files, err := cases.ReadDir("cases")
	if err != nil {
		t.Fatal(err)
	}
	requests := 0
	for _, file := range files {
		name, isCase := strings.CutSuffix(file.Name(), ".txt")
		if !isCase {
			continue
		}
		text, err := cases.ReadFile("cases/" + file.Name())
		if err != nil {
			t.Fatal(err)
		}
		t.Run(name, func(t *testing.T) {
			c := &conversation{server: s, parties: parties, file: file.Name(), vars: parties.vars()}
			c.vars["root"] = s.RootToken
			for _, block := range c.parse(t, string(text)) {
				t.Run(block.title, func(t *testing.T) { c.play(t, block) })
			}
			requests += c.requests
		})
	}
	t.Logf("%d requests answered", requests)
}

// block is one titled part of a conversation.
type block struct {
	title string
	lines []line
}

type line struct {
	number int
	text   string
}

// conversation is the state while one file is played.
type conversation struct {
	server   Server
	parties  *parties
	file     string
	vars     map[string]string
	requests int

	// From here on: reset at each title.
	token, namespace string
	client           *http.Client
}

// parse joins continued lines and splits the file at its titles.
func (c *conversation) parse(t *testing.T, text string) []block {
	var blocks []block
	for i, raw := range strings.Split(text, "\n") {
		trimmed := strings.TrimSpace(raw)
		last := len(blocks) - 1
		switch {
		case trimmed == "" || strings.HasPrefix(trimmed, "//"):
		case strings.HasPrefix(trimmed, "# "):
			blocks = append(blocks, block{title: trimmed[2:]})
		case last < 0:
			t.Fatalf("%s:%d: a line before the first title", c.file, i+1)
		case raw[0] == ' ':
			lines := blocks[last].lines
			lines[len(lines)-1].text += " " + trimmed
		default:
			blocks[last].lines = append(blocks[last].lines, line{i + 1, trimmed})
		}
	}
	return blocks
}

func (c *conversation) play(t *testing.T, b block) {
	c.token, c.namespace, c.client = c.server.RootToken, "", c.parties.client(t, c.server.CA, false)
	var answer *answer
	for i := 0; i < len(b.lines); i++ {
		l := b.lines[i]
		at := fmt.Sprintf("%s:%d", c.file, l.number)
		verb, rest, _ := strings.Cut(l.text, " ")
		switch verb {
		case "as":
			c.token = c.fill(t, at, rest)
		case "in":
			c.namespace = rest
		case "let":
			name, value, _ := strings.Cut(rest, " ")
			c.vars[name] = c.fill(t, at, value)
		case "present":
			c.client = c.parties.client(t, c.server.CA, true)
		case "seal":
			c.server.Seal()
		case "unseal":
			c.server.Unseal()
		case "prepare":
			if prepare := c.server.Prepare[rest]; prepare != nil {
				prepare(c.vars)
				for b.lines[i].text != "prepared" {
					i++
				}
			}
		case "prepared":
		case "until":
			i++
			c.until(t, at, rest, b.lines[i].text)
		case "GET", "HEAD", "POST", "PUT", "DELETE", "LIST", "PATCH":
			answer = c.ask(t, at, l.text)
		default:
			if answer == nil {
				t.Fatalf("%s: %q is not a known command", at, l.text)
			}
			c.requests++
			if mistakes := c.check(t, at, answer, l.text); len(mistakes) > 0 {
				t.Errorf("%s: %s %s: answer %d %s\n\t%s", at, answer.method, answer.path, answer.status, answer.body, strings.Join(mistakes, "\n\t"))
			}
			answer = nil
		}
	}
}

// until repeats a request until the answer is as expected: Vault expires tokens by its own clock.
func (c *conversation) until(t *testing.T, at, request, expected string) {
	deadline := time.Now().Add(eventually)
	for pause := 50 * time.Millisecond; ; pause *= 2 {
		answer := c.ask(t, at, request)
		mistakes := c.check(t, at, answer, expected)
		switch {
		case len(mistakes) == 0:
			c.requests++
			return
		case time.Now().After(deadline):
			t.Fatalf("%s: after %s still: answer %d %s\n\t%s", at, eventually, answer.status, answer.body, strings.Join(mistakes, "\n\t"))
		}
		select {
		case <-time.After(pause):
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		}
	}
}

type answer struct {
	method, path string
	status       int
	body         string
	header       http.Header
}

// ask sends "METHOD path body".
func (c *conversation) ask(t *testing.T, at, request string) *answer {
	parts := strings.SplitN(c.fill(t, at, request), " ", 3)
	body := ""
	if len(parts) == 3 {
		body = parts[2]
	}
	req, err := http.NewRequestWithContext(t.Context(), parts[0], c.server.URL+"/v1/"+parts[1], strings.NewReader(body))
	if err != nil {
		t.Fatalf("%s: %v", at, err)
	}
	if c.token != "none" {
		req.Header.Set("X-Vault-Token", c.token)
	}
	if c.namespace != "" {
		req.Header.Set("X-Vault-Namespace", c.namespace)
	}
	resp, err := c.client.Do(req)
	if err != nil {
		t.Fatalf("%s: %v", at, err)
	}
	defer func() { _ = resp.Body.Close() }()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s: %v", at, err)
	}
	return &answer{parts[0], parts[1], resp.StatusCode, string(content), resp.Header}
}

// check compares an answer with "STATUS", "STATUS {json}", "STATUS ! error" or "STATUS !* wrapped error". It
// returns the differences and stores the values that the expectation names.
func (c *conversation) check(t *testing.T, at string, a *answer, expected string) (mistakes []string) {
	number, rest, _ := strings.Cut(c.fill(t, at, expected), " ")
	status, err := strconv.Atoi(number)
	if err != nil {
		t.Fatalf("%s: %q is not a status code", at, number)
	}
	if a.status != status {
		mistakes = append(mistakes, fmt.Sprintf("want status %d", status))
	}
	var want any
	switch {
	case rest == "":
		if status >= 400 {
			want = map[string]any{"errors": []any{}}
		}
	case strings.HasPrefix(rest, "!* "):
		want = map[string]any{"errors": []any{"1 error occurred:\n\t* " + rest[3:] + "\n\n"}}
	case strings.HasPrefix(rest, "! "):
		want = map[string]any{"errors": []any{rest[2:]}}
	default:
		if want, err = decode(rest); err != nil {
			t.Fatalf("%s: expected JSON: %v", at, err)
		}
	}
	if want == nil {
		if a.body != "" && status == http.StatusNoContent {
			mistakes = append(mistakes, "want no body")
		}
		return mistakes
	}
	got, err := decode(a.body)
	if err != nil {
		return append(mistakes, "want JSON")
	}
	c.compare("", want, got, &mistakes)
	return mistakes
}

func decode(text string) (v any, err error) {
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	err = decoder.Decode(&v)
	return v, err
}

// compare compares got with want at a path. An object may have extra fields, an array may not have extra items.
func (c *conversation) compare(path string, want, got any, mistakes *[]string) {
	wrong := func(format string, args ...any) {
		*mistakes = append(*mistakes, strings.TrimPrefix(path, ".")+": "+fmt.Sprintf(format, args...))
	}
	switch want := want.(type) {
	case map[string]any:
		object, ok := got.(map[string]any)
		if !ok {
			wrong("got %v, want an object", got)
			return
		}
		for name, value := range want {
			found, there := object[name]
			switch {
			case value == "absent" && there:
				wrong("%s: got %v, want none", name, found)
			case value == "absent":
			case !there:
				wrong("%s: missing", name)
			default:
				c.compare(path+"."+name, value, found, mistakes)
			}
		}
	case []any:
		list, ok := got.([]any)
		if !ok || len(list) != len(want) {
			wrong("got %v, want %d items", got, len(want))
			return
		}
		for i, value := range want {
			c.compare(fmt.Sprintf("%s[%d]", path, i), value, list[i], mistakes)
		}
	case string:
		if mistake := c.compareText(want, got); mistake != "" {
			wrong("%s", mistake)
		}
	default:
		if got != want {
			wrong("got %v, want %v", got, want)
		}
	}
}

// compareText handles the patterns in wanted strings (see cases/README.md).
func (c *conversation) compareText(want string, got any) (mistake string) {
	text, isText := got.(string)
	if !isText {
		encoded, _ := json.Marshal(got) // it was decoded from JSON
		text = string(encoded)
	}
	if most, ok := strings.CutPrefix(want, "about "); ok {
		limit, _ := strconv.Atoi(most)
		if n, err := strconv.Atoi(text); err != nil || isText || n > limit || n < limit-30 {
			return fmt.Sprintf("got %s, want a number a little below %d", text, limit)
		}
		return ""
	}
	if object, ok := strings.CutPrefix(want, "keys "); ok {
		fields, _ := got.(map[string]any)
		if names := strings.Join(slices.Sorted(maps.Keys(fields)), " "); names != object {
			return fmt.Sprintf("got fields %q, want %q", names, object)
		}
		return ""
	}
	if pattern, ok := strings.CutPrefix(want, "~"); ok {
		if !regexp.MustCompile(pattern).MatchString(text) {
			return fmt.Sprintf("got %q, want a match of %q", text, pattern)
		}
		return ""
	}
	name, isName := strings.CutPrefix(want, "?")
	switch {
	case isName && (got == nil || text == ""):
		return "got nothing, want a value"
	case isName && name != "":
		c.vars[name] = text
	case !isName && (!isText || text != want):
		return fmt.Sprintf("got %s, want %q", text, want)
	}
	return ""
}

var variable = regexp.MustCompile(`\$[a-z_0-9]+`)

// fill replaces the variables.
func (c *conversation) fill(t *testing.T, at, text string) string {
	return variable.ReplaceAllStringFunc(text, func(name string) string {
		value, ok := c.vars[name[1:]]
		if !ok {
			t.Fatalf("%s: no variable %s", at, name)
		}
		return value
	})
}
