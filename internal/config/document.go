// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"errors"
	"io"
	"sort"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// decode returns the root of the one YAML document in data. With problems, root is still the first document's when
// there is one to look at, and nil otherwise.
func decode(data []byte) (root *yaml.Node, problems []Problem) {
	refuse := func(line int, text string) []Problem { return []Problem{{Line: line, Text: text}} }
	if len(data) > MaxSize {
		return nil, refuse(0, "the file is larger than 1 MiB; it cannot be a Trousseau configuration")
	}
	if at := firstBinary(data); at >= 0 {
		return nil, refuse(1+bytes.Count(data[:at], []byte("\n")),
			"the file is not text: this line holds a byte that is neither UTF-8 nor printable")
	}
	docs, err := documents(data)
	if err != nil {
		return nil, refuse(firstBadLine(data), syntaxProblem(err))
	}
	if len(docs) > 1 {
		problems = refuse(docs[1].Line, `a second YAML document begins here; keep one, and remove the "---" between them`)
	}
	if len(docs) > 0 && !isNull(docs[0].Content[0]) {
		return docs[0].Content[0], problems
	}
	if problems == nil {
		problems = refuse(0, "the file is empty; it needs a vault section with keynames, address and token")
	}
	return nil, problems
}

// firstBinary returns the offset of the first byte that no text file holds, or -1.
func firstBinary(data []byte) int {
	for at := 0; at < len(data); {
		r, size := utf8.DecodeRune(data[at:])
		invalid := r == utf8.RuneError && size == 1
		control := r < ' ' && r != '\t' && r != '\n' && r != '\r'
		if invalid || control {
			return at
		}
		at += size
	}
	return -1
}

// documents parses data. It stops after the second document, since one is all we take.
func documents(data []byte) (found []*yaml.Node, err error) {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	for len(found) < 2 {
		var document yaml.Node
		switch err := decoder.Decode(&document); {
		case errors.Is(err, io.EOF):
			return found, nil
		case err != nil:
			return nil, err
		}
		found = append(found, &document)
	}
	return found, nil
}

// syntaxProblem puts a YAML error in our own words: the library's text may quote a value, and its line is that of the
// enclosing mapping.
func syntaxProblem(err error) string {
	if strings.HasPrefix(err.Error(), "yaml: unknown anchor ") {
		return "a value that begins with * is a YAML alias; write the value itself, in quotes if it begins with *"
	}
	return `not valid YAML; write name: "value", indented with blanks, not tabs, and see whether the file is cut short`
}

// maxSearched is the size up to which firstBadLine looks, in bytes: it parses the file again for each of its steps.
const maxSearched = 64 << 10

// firstBadLine returns the number of the first line that makes data invalid YAML: up to the line before, it is valid.
// Where a value spans lines the mistake may stand further down, but never further up. It returns 0 for a large file.
func firstBadLine(data []byte) int {
	if len(data) > maxSearched {
		return 0
	}
	var ends []int
	for at := range data {
		if data[at] == '\n' || at == len(data)-1 {
			ends = append(ends, at+1)
		}
	}
	return 1 + sort.Search(len(ends), func(i int) bool {
		_, err := documents(data[:ends[i]])
		return err != nil
	})
}
