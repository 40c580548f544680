// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

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
