// SPDX-License-Identifier: Apache-2.0

package config

import (
	"net/url"
	"strconv"
	"strings"
)

// address reads the URL of Vault and returns it as scheme://host.
func (p *parser) address(s section) string {
	if !s.has("address") {
		p.refuse(s.line, s.full("address"), `is missing; write the URL of Vault, such as "https://vault.example:8200"`)
		return ""
	}
	value, ok := p.text(s, "address")
	if !ok {
		return ""
	}
	base, wrong := baseURL(value)
	if wrong != "" {
		p.refuse(s.lineOf("address"), s.full("address"), "%s", wrong)
		return ""
	}
	return base
}

// addresses reads the URLs of further nodes beside first, that of the field address, which is empty when refused.
func (p *parser) addresses(s section, first string) (more []string) {
	const howTo = `list the URLs of further nodes below it, each on a line of its own as "- https://vault-2.example:8200", ` +
		"or remove the line"
	firstScheme, _, _ := strings.Cut(first, ":")
	firstLine := map[string]int{first: s.lineOf("address")}
	for _, item := range p.list(s, "addresses", howTo) {
		base, wrong := baseURL(item.text)
		if wrong != "" {
			p.refuse(item.line, item.field, "%s", wrong)
			continue
		}
		if line, seen := firstLine[base]; seen {
			p.refuse(item.line, item.field, listedAlready, show(base), line)
			continue
		}
		firstLine[base] = item.line
		if scheme, _, _ := strings.Cut(base, ":"); first != "" && scheme != firstScheme {
			p.refuse(item.line, item.field, "has another scheme than vault.address; "+
				"write https:// in both, or the token is now and then sent in the clear")
			continue
		}
		more = append(more, base)
	}
	return more
}

// baseURL returns scheme and host of an address, or what is wrong with it. Of a refused address it shows nothing but
// what url.Parse has told apart from user name, password and query.
func baseURL(address string) (base, wrong string) {
	if !strings.Contains(address, "://") {
		return "", `has no scheme; write the full URL, such as "https://vault.example:8200"`
	}
	u, err := url.Parse(address)
	if err != nil {
		return "", `is not a URL; write one such as "https://vault.example:8200"`
	}
	base = (&url.URL{Scheme: u.Scheme, Host: u.Host}).String()
	switch {
	case u.User != nil:
		return "", "holds a user name or password; remove them and the @, since Vault takes the token only"
	case u.Scheme != "http" && u.Scheme != "https":
		return "", "must begin with https://, or with http:// where nobody else can listen"
	case u.Hostname() == "":
		return "", `names no host; write the full URL, such as "https://vault.example:8200"`
	case !validPort(u):
		return "", "has no valid port; write a number from 1 to 65535 after the colon, or no colon"
	case strings.Contains(address, "?") || strings.Contains(address, "#"):
		return "", "must not have a query (?) or fragment (#); write " + show(base)
	case u.Path != "" && u.Path != "/":
		// vault-client-go drops the path without a word, and so asks something else than what was meant.
		return "", "must not have a path; write " + show(base) + " if Vault answers there, without the path"
	}
	return base, ""
}

func validPort(u *url.URL) bool {
	if u.Port() == "" {
		return !strings.HasSuffix(u.Host, ":")
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	return err == nil && port > 0
}
