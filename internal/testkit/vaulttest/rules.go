// SPDX-License-Identifier: Apache-2.0

package vaulttest

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/scanner"
)

// capabilityWords are the capabilities allowed in a policy.
var capabilityWords = []string{"create", "read", "update", "delete", "list", "sudo", "deny", "patch", "subscribe", "recover"}

// format writes rules in Vault's policy language, sorted by path.
func (r Rules) format() string {
	var blocks []string
	for _, path := range slices.Sorted(maps.Keys(r)) {
		var words []string
		for _, capability := range r[path] {
			words = append(words, strconv.Quote(capability))
		}
		blocks = append(blocks, fmt.Sprintf("path %q {\n  capabilities = [%s]\n}\n", path, strings.Join(words, ", ")))
	}
	return strings.Join(blocks, "\n")
}

// parseRules parses Vault's policy language, restricted to paths and capabilities. Everything else in HCL, such as
// allowed_parameters, is refused.
func parseRules(text string) (Rules, error) {
	p := &ruleParser{rules: Rules{}}
	p.Init(strings.NewReader(text))
	p.Mode = scanner.ScanIdents | scanner.ScanStrings | scanner.ScanComments | scanner.SkipComments
	p.Error = func(_ *scanner.Scanner, message string) { p.fail("%s", message) }
	for p.next(); p.token != scanner.EOF && p.err == nil; {
		p.block()
	}
	return p.rules, p.err
}

// ruleParser reads one token ahead. It keeps the first error and stops there.
type ruleParser struct {
	scanner.Scanner
	token rune
	rules Rules
	err   error
}

func (p *ruleParser) fail(format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf(format, args...)
	}
}

func (p *ruleParser) next() {
	p.token = p.Scan()
	for p.token == '#' {
		for c := p.Next(); c != '\n' && c != scanner.EOF; {
			c = p.Next()
		}
		p.token = p.Scan()
	}
}

// want consumes a token, which must be this one.
func (p *ruleParser) want(token rune, what string) (text string) {
	if p.token != token {
		p.fail("At %d:%d: expected %s got: %s", p.Position.Line, p.Position.Column, what, scanner.TokenString(p.token))
		return ""
	}
	text = p.TokenText()
	p.next()
	return text
}

func (p *ruleParser) text() string {
	text, err := strconv.Unquote(p.want(scanner.String, "a string"))
	if err != nil {
		p.fail("%w", err)
	}
	return text
}

// block parses: path "…" { capabilities = ["…", …] }. Without capabilities it grants nothing.
func (p *ruleParser) block() {
	if key := p.want(scanner.Ident, "a key"); key != "path" {
		p.fail("1 error occurred:\n\t* invalid key %q on line 0\n\n", key)
	}
	path := p.text()
	p.want('{', "an object")
	p.rules[path] = append([]string{}, p.rules[path]...)
	if p.token != '}' {
		p.capabilities(path)
	}
	p.want('}', "object closing RBRACE")
}

func (p *ruleParser) capabilities(path string) {
	if key := p.want(scanner.Ident, "a key"); key != "capabilities" {
		p.fail("path %q: %s is not supported by this fake", path, key)
	}
	p.want('=', "=")
	p.want('[', "a list")
	for p.token != ']' && p.err == nil {
		capability := p.text()
		if !slices.Contains(capabilityWords, capability) {
			p.fail("path %q: invalid capability %q", path, capability)
		}
		p.rules[path] = append(p.rules[path], capability)
		if p.token != ']' {
			p.want(',', "a comma")
		}
	}
	p.want(']', "the end of the list")
}
