// SPDX-License-Identifier: Apache-2.0

package config

import "strings"

// serviceAccountFile is where Kubernetes puts the token of a pod's ServiceAccount.
const serviceAccountFile = "/var/run/secrets/kubernetes.io/serviceaccount/token"

// token reads a Vault token that stands in config.yaml.
func (p *parser) token(s section, c *Credential) { c.Token = p.secret(s, "token", tokenProblem) }

// tokenFile reads a Vault token from its file.
func (p *parser) tokenFile(s section, c *Credential) {
	c.Token = p.secretIn(s, "tokenFile", "", tokenProblem)
}

// appRole reads the two halves of an AppRole.
func (p *parser) appRole(s section, c *Credential) {
	switch secretID := s.first("secretID", "secretIDFile"); {
	case secretID == "":
		p.refuse(s.lineOf("roleID"), s.full("secretID"),
			"is missing; roleID needs one, here or in the file that secretIDFile names")
	case !s.has("roleID"):
		p.refuse(s.lineOf(secretID), s.full("roleID"), "is missing; %s needs the role ID it was made for", secretID)
	}
	c.RoleID = p.name(s, "roleID")
	c.SecretID = p.secret(s, "secretID", textProblem)
	inFile := p.secretIn(s, "secretIDFile", "", textProblem)
	switch {
	case s.has("secretID") && s.has("secretIDFile"):
		p.second(s, "secret ID", "secretID", "secretIDFile")
	case s.has("secretIDFile"):
		c.SecretID = inFile
	}
}

// kubernetes reads the role and the ServiceAccount token of Kubernetes auth.
func (p *parser) kubernetes(vault section, c *Credential) {
	s, ok := p.within(vault, "kubernetes")
	if !ok {
		return
	}
	if !s.has("role") {
		p.refuse(s.line, s.full("role"), "is missing; write the role of Vault's Kubernetes auth to log in for")
	}
	c.Role = p.name(s, "role")
	c.JWT = p.secretIn(s, "tokenFile", serviceAccountFile, tokenProblem)
}

// jwt reads the role, which may be absent, and the JWT of JWT auth.
func (p *parser) jwt(vault section, c *Credential) {
	s, ok := p.within(vault, "jwt")
	if !ok {
		return
	}
	if !s.has("tokenFile") {
		p.refuse(s.line, s.full("tokenFile"), "is missing; write the name of a file that holds a JWT")
	}
	c.Role = p.name(s, "role")
	c.JWT = p.secretIn(s, "tokenFile", "", tokenProblem)
}

// authPath reads the mount of the auth method.
func (p *parser) authPath(s section, m Method) string {
	path := p.path(s, "authPath", m.mount())
	if mount, prefixed := strings.CutPrefix(path, "auth/"); prefixed {
		p.refuse(s.lineOf("authPath"), s.full("authPath"), "must not begin with auth/, which Trousseau adds; write %s",
			show(mount))
	}
	return path
}
