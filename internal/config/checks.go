// SPDX-License-Identifier: Apache-2.0

package config

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// check returns value in the form to keep, or what is wrong with it. The problem reads on from the name of the field,
// or of the file that holds the value.
type check func(value string) (kept, wrong string)

// Check applies the rule of a scalar or list field of the section vault to a value that comes from elsewhere, such as
// a flag. It returns the value as Parse keeps it. The error reads on from the name of the flag, and holds no secret. The
// field must exist.
func Check(name, value string) (kept string, err error) {
	i := slices.IndexFunc(table["vault"], func(f field) bool { return f.name == name })
	kept, wrong := table["vault"][i].check(value)
	if wrong != "" {
		return "", errors.New(wrong)
	}
	return kept, nil
}

// rule is one thing that a value must or must not be.
type rule struct {
	pattern *regexp.Regexp
	match   bool // what pattern must do
	wrong   string
}

func must(pattern, wrong string) rule    { return rule{regexp.MustCompile(pattern), true, wrong} }
func mustNot(pattern, wrong string) rule { return rule{regexp.MustCompile(pattern), false, wrong} }

// broken returns what is wrong with value by the first of rules that it breaks.
func broken(value string, rules []rule) (wrong string) {
	for _, r := range rules {
		if r.pattern.MatchString(value) != r.match {
			return r.wrong
		}
	}
	return ""
}

// The checks of values that may be secret, or a secret in the wrong field: their problems do not quote the value.
var (
	checkProvider = line(must(`^vault$`, `must be "vault", the only provider`))
	checkBoolean  = line(must(`^(?i:true|false)$`, "must be true or false"))
	checkToken    = line(mustNot(` `, "contains a space; a token is one word"))
	checkLine     = line() // any text
	checkFileName = line(must(`^/`, "must be an absolute file name, beginning with /"))
)

// lineRules are for every value.
var lineRules = []rule{
	must(`.`, "is empty; write a value"),
	mustNot(`<no value>`, "contains <no value>: the KV secret lacks that field, so Vault Agent rendered nothing there; "+
		"add the field to the secret or correct its name in the template"),
	mustNot(`[\r\n]`, "has several lines; write one"),
	must(`^[\pL\pM\pN\pP\pS ]*$`, "contains a tab or another character that cannot be printed; remove it"),
}

// placeholders are for every value but associatedData, which the operator must keep once something is encrypted with it.
// Their problems do not quote the value, which may contain a secret.
var placeholders = []rule{
	mustNot(`<nil>`, "contains <nil>: the template printed a field that does not exist; correct its name in the template"),
	mustNot(`\$\{.*\}|^\$[A-Z_]+$`, "contains a ${…} placeholder, but environment variables are not read; "+
		"write the value itself"),
	mustNot(`^<.*>$`, "contains a <…> placeholder; write the value itself"),
	mustNot(`\{\{.*\}\}`, "contains a {{…}} template that was not rendered; write the value itself"),
	mustNot(`map\[.*\]`, "contains a whole KV secret, printed as map[…]; name one of its fields in the template"),
}

// line returns a check of one line of text that is no placeholder.
func line(rules ...rule) check { return oneLine(slices.Concat(lineRules, placeholders, rules)) }

// oneLine returns a check that drops outer white space, because templates leave it behind, and applies rules.
func oneLine(rules []rule) check {
	return func(value string) (kept, wrong string) {
		kept = strings.TrimSpace(strings.ToValidUTF8(value, "\x00")) // not UTF-8, so not printable either
		return kept, broken(kept, rules)
	}
}

// maxName is the maximum length of a name, in bytes. Namespace, transitPath and key name all go into the key_id, which
// kube-apiserver limits to 1024 bytes (KeyIDMaxSize in k8s.io/apiserver); associatedData goes to Vault with each request.
const maxName = 256

// The checks of names, which go to etcd, logs and metrics in the clear: their problems quote the value.
var (
	checkName           = name(checkLine, "")
	checkAssociatedData = name(oneLine(lineRules), "")
	// The rule is Vault's own for a key in a path (framework.GenericNameRegex in vault/sdk).
	checkKeyName = name(checkLine, "", must(`^\w(([\w-.]+)?\w)?$`,
		`is not a valid transit key name; use a-z, A-Z, 0-9 and "_", and "-" and "." between them`))
	checkPath     = name(checkLine, "/", pathRules...)
	checkAuthPath = name(checkPath, "/", mustNot(`^auth/`, "begins with auth/, which Trousseau adds; remove it"))
)

// pathRules are for a mount or a namespace. A path that Vault or a proxy would read as another one must not get into the
// key_id.
var pathRules = []rule{
	must(`.`, "is empty; write a name or remove the line"),
	mustNot(`[ \\%?#]`, `contains a space or one of \ % ? #; write the path itself, without escapes`),
	mustNot(`//`, "has an empty segment; write one slash between two names"),
	mustNot(`(^|/)\.\.?(/|$)`, `has "." or ".." as a segment; write the path without it`),
}

// misplaced says where value belongs when it is almost certainly a token. The patterns are narrow: they must not refuse
// the name of a key.
var misplaced = []rule{
	mustNot(`^(hv[sbr]\.[\w-]{20,}|[sbr]\.[A-Za-z0-9]{24})$`, "belongs in vault.token, not here"),
	mustNot(`^eyJ[\w-]{16,}\.eyJ[\w-]+\.[\w-]*$`, "belongs in a file that tokenFile names, not here"),
}

// name returns a check of a name that line accepts; outer is cut off at both ends, as Vault itself does with slashes.
func name(line check, outer string, rules ...rule) check {
	rules = slices.Concat(rules, misplaced)
	return func(value string) (kept, wrong string) {
		if value, wrong = line(value); wrong != "" {
			return "", wrong
		}
		kept = strings.Trim(value, outer)
		switch wrong = broken(kept, rules); {
		case wrong != "":
			wrong = show(value) + " " + wrong
		case len(kept) > maxName:
			wrong = fmt.Sprintf("%s is too long; the maximum is %d bytes", show(value), maxName)
		}
		return kept, wrong
	}
}

// show returns value in quotes for the text of a problem. It is for names, addresses and file names. Tokens get pasted
// into the wrong field, so it hides what could hold one.
func show(value string) string {
	switch {
	case tokenInside.MatchString(value):
		return "the value (not shown, it could be a token)"
	case len(value) > maxName:
		return fmt.Sprintf("the value (not shown, it has %d bytes)", len(value))
	}
	return strconv.Quote(value)
}

// tokenInside matches generously: hiding a value without need does no harm. Vault's tokens begin with hvs., hvb. or
// hvr.; those of OpenBao, and of Vault before 1.10, with s., b. or r. A JWT is a JSON object in base64, and then a dot.
// A secret ID is a UUID, as are names of directories.
var tokenInside = regexp.MustCompile(`(?i:hv[sbr]\.|\b[sbr]\.[a-z0-9]{20})|\beyJ[\w-]{16,}\.|` +
	`(?i:(^|[^/])\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})`)

var dnsName = line(must(`^\w([\w.-]{0,251}\w)?$`,
	`is not a host name; write one that is in Vault's certificate, such as "vault.example"`))

// checkHostName accepts IP addresses and DNS names, also with the underscore that some clusters have.
func checkHostName(value string) (kept, wrong string) {
	if _, err := netip.ParseAddr(value); err == nil {
		return value, ""
	}
	return dnsName(value)
}

// checkAddress keeps scheme and host. Of a refused address it shows only what url.Parse has told apart from user name,
// password and query.
func checkAddress(value string) (base, wrong string) {
	address, wrong := checkLine(value)
	if wrong != "" {
		return "", wrong
	}
	if !strings.Contains(address, "://") {
		return "", `has no scheme; write the full URL, such as "https://vault.example:8200"`
	}
	u, err := url.Parse(address)
	if err != nil {
		return "", `is not a URL; write one such as "https://vault.example:8200"`
	}
	base = (&url.URL{Scheme: u.Scheme, Host: u.Host}).String()
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	switch {
	case u.User != nil:
		wrong = "contains a user name or password; remove them and the @, Vault does not use them"
	case u.Scheme != "http" && u.Scheme != "https":
		wrong = "must begin with https://, or with http:// on a network that you trust"
	case u.Hostname() == "":
		wrong = `has no host; write the full URL, such as "https://vault.example:8200"`
	case strings.HasSuffix(u.Host, ":"), u.Port() != "" && (err != nil || port == 0):
		wrong = "has no valid port; write a number from 1 to 65535 after the colon, or no colon"
	case strings.ContainsAny(address, "?#"):
		wrong = "must not have a query (?) or fragment (#); write " + show(base)
	case u.Path != "" && u.Path != "/":
		// vault-client-go drops the path silently, and so would ask another server than meant.
		wrong = "must not have a path; write " + show(base) + " if Vault answers there"
	}
	return base, wrong
}

// checkCertificates keeps the certificates of a PEM file. It drops the rest, because the file may hold the private key as
// well, and certificates are not kept secret.
func checkCertificates(content string) (kept, wrong string) {
	blocks, wrong := pemBlocks(content, "CERTIFICATE")
	for _, block := range blocks {
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return "", "contains a certificate that cannot be parsed"
		}
		kept += withoutHeaders(block)
	}
	return kept, wrong
}

// checkPrivateKey keeps the first private key of a PEM file.
func checkPrivateKey(content string) (kept, wrong string) {
	blocks, wrong := pemBlocks(content, "PRIVATE KEY")
	switch {
	case wrong != "":
		return "", wrong
	case blocks[0].Type == "ENCRYPTED PRIVATE KEY" || blocks[0].Headers["DEK-Info"] != "":
		return "", "contains an encrypted private key; write it without a passphrase"
	}
	// Damaged, or of another certificate? tls.X509KeyPair does not say, but tries the same forms.
	_, pkcs1 := x509.ParsePKCS1PrivateKey(blocks[0].Bytes)
	_, pkcs8 := x509.ParsePKCS8PrivateKey(blocks[0].Bytes)
	_, sec1 := x509.ParseECPrivateKey(blocks[0].Bytes)
	if pkcs1 != nil && pkcs8 != nil && sec1 != nil {
		return "", "contains a private key that cannot be parsed"
	}
	return withoutHeaders(blocks[0]), ""
}

// pemBlocks returns the blocks of a kind, of which there may be sorts, such as EC PRIVATE KEY; at least one.
func pemBlocks(content, kind string) (blocks []*pem.Block, wrong string) {
	wrong = "is not a PEM file, whose blocks begin with -----BEGIN"
	for block, rest := pem.Decode([]byte(content)); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == kind || kind == "PRIVATE KEY" && strings.HasSuffix(block.Type, " "+kind) {
			blocks = append(blocks, block)
		}
		wrong = "contains no " + kind + " block"
	}
	if blocks != nil {
		wrong = ""
	}
	return blocks, wrong
}

func withoutHeaders(b *pem.Block) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: b.Type, Bytes: b.Bytes}))
}
