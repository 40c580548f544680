// SPDX-License-Identifier: Apache-2.0

package config

import "strings"

// token reads the Vault token from the one place that holds it.
func (p *parser) token(s section) Secret {
	if s.has("token") && s.has("tokenFile") {
		first, second := "token", "tokenFile"
		if s.lineOf(first) > s.lineOf(second) {
			first, second = second, first
		}
		p.refuse(s.lineOf(second), s.full(second), "is a second credential beside %s on line %d; keep one of the two",
			first, s.lineOf(first))
	}
	if !s.has("token") && !s.has("tokenFile") {
		p.refuse(s.line, s.full("token"),
			"is missing; write a Vault token, or in tokenFile the name of a file that holds one")
	}
	var secret Secret
	if value, ok := p.text(s, "token"); ok {
		secret = p.oneWord(s, "token", "", value)
	}
	if content, name, ok := p.file(s, "tokenFile"); ok {
		secret = p.oneWord(s, "tokenFile", show(name)+" ", strings.TrimSpace(string(content)))
	}
	return secret
}

// oneWord hides the token that a field holds, or that the file named by the field does; subject is what precedes a
// complaint about it.
func (p *parser) oneWord(s section, field, subject, token string) Secret {
	wrong := textProblem(token)
	if wrong == "" && strings.Contains(token, " ") {
		wrong = "holds a blank; a token is one word"
	}
	if wrong != "" {
		p.refuse(s.lineOf(field), s.full(field), "%s%s", subject, wrong)
		return Secret{}
	}
	return NewSecret(token)
}
