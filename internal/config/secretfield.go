// SPDX-License-Identifier: Apache-2.0

package config

import "strings"

// secret hides what a field holds, if it is there; problem says what may be wrong with it.
func (p *parser) secret(s section, name string, problem func(string) string) Secret {
	value, ok := p.text(s, name)
	if !ok {
		return Secret{}
	}
	return p.hidden(s, name, "", value, problem)
}

// secretIn hides what the file holds that a field names; whenAbsent is as for file.
func (p *parser) secretIn(s section, name, whenAbsent string, problem func(string) string) Secret {
	content, file, ok := p.file(s, name, whenAbsent)
	if !ok {
		return Secret{}
	}
	return p.hidden(s, name, show(file)+" ", strings.TrimSpace(string(content)), problem)
}

// hidden hides a value, or refuses it; subject is what precedes a complaint.
func (p *parser) hidden(s section, field, subject, value string, problem func(string) string) Secret {
	if wrong := problem(value); wrong != "" {
		p.refuse(s.lineOf(field), s.full(field), "%s%s", subject, wrong)
		return Secret{}
	}
	return NewSecret(value)
}

// tokenProblem says what is wrong with a token or a JWT. A secret ID may be any line of text.
func tokenProblem(value string) string {
	if wrong := textProblem(value); wrong != "" {
		return wrong
	}
	if strings.Contains(value, " ") {
		return "holds a blank; a token is one word"
	}
	return ""
}
