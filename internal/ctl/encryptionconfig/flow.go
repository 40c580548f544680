// SPDX-License-Identifier: Apache-2.0

package encryptionconfig

import (
	"bytes"
	"slices"
	"strings"
	"unicode/utf8"
)

// span is an item in flow style, from its { to the byte after its }.
type span struct{ begin, end int }

func (s splice) insertFlow(at int, item string) ([]byte, bool) {
	spans, ok := s.spans()
	switch {
	case !ok:
		return nil, false
	case at == 0:
		return slices.Insert(slices.Clone(s.text), spans[0].begin, []byte(item+", ")...), true
	}
	return slices.Insert(slices.Clone(s.text), spans[at-1].end, []byte(", "+item)...), true
}

// firstFlow moves an item to the front by exchanging the items' texts, and keeps the
// text between them.
func (s splice) firstFlow(from int) ([]byte, bool) {
	spans, ok := s.spans()
	if !ok {
		return nil, false
	}
	order := slices.Clone(spans)
	order = slices.Insert(slices.Delete(order, from, from+1), 0, spans[from])
	var all []byte
	rest := 0
	for i, place := range spans {
		all = append(all, s.text[rest:place.begin]...)
		all = append(all, s.text[order[i].begin:order[i].end]...)
		rest = place.end
	}
	return append(all, s.text[rest:]...), true
}

// spans returns the places of the items. It fails for items without braces.
func (s splice) spans() ([]span, bool) {
	all := make([]span, len(s.seq.Content))
	for i, item := range s.seq.Content {
		begin := s.offset(item.Line, item.Column)
		end := closing(s.text, begin)
		if begin >= len(s.text) || s.text[begin] != '{' || end < 0 {
			return nil, false
		}
		all[i] = span{begin, end}
	}
	return all, true
}

// offset returns the offset of a line and column, both from 1, the column in
// characters.
func (s splice) offset(line, column int) int {
	at := 0
	for ; line > 1; line-- {
		next := bytes.IndexByte(s.text[at:], '\n')
		if next < 0 {
			return len(s.text)
		}
		at += next + 1
	}
	for ; column > 1 && at < len(s.text); column-- {
		_, size := utf8.DecodeRune(s.text[at:])
		at += size
	}
	return at
}

// closing returns the offset after the bracket that closes the one at begin, or -1.
func closing(text []byte, begin int) int {
	depth := 0
	for at := begin; at < len(text); at++ {
		switch c := text[at]; c {
		case '{', '[':
			depth++
		case '}', ']':
			depth--
			if depth == 0 {
				return at + 1
			}
		case '"', '\'':
			if !strings.ContainsRune(" \t\r\n{[,:", rune(text[max(at-1, 0)])) {
				continue // inside an unquoted string
			}
			for at++; at < len(text) && text[at] != c; at++ {
				if c == '"' && text[at] == '\\' {
					at++
				}
			}
		case '#':
			if strings.ContainsRune(" \t\r\n", rune(text[max(at-1, 0)])) {
				for at+1 < len(text) && text[at+1] != '\n' {
					at++
				}
			}
		}
	}
	return -1
}
