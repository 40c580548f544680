// SPDX-License-Identifier: Apache-2.0

package encryptionconfig

import (
	"bytes"
	"strings"

	yamlnode "go.yaml.in/yaml/v3"
)

// splice edits the items of one sequence in a text, and keeps all other bytes. It
// knows how YAML is usually written, not all of YAML: it may fail, and the caller must
// parse and check the result.
type splice struct {
	text []byte
	seq  *yamlnode.Node
}

// insert inserts an item at an index.
func (s splice) insert(at int, i item) ([]byte, bool) {
	if s.seq.Style&yamlnode.FlowStyle != 0 {
		return s.insertFlow(at, i.flow)
	}
	b := s.block()
	row := 0
	if at < len(s.seq.Content) {
		row = b.start(at)
	} else {
		row = b.end(at - 1)
	}
	var text strings.Builder
	for line := range strings.Lines(i.block) {
		text.WriteString(strings.Repeat(" ", s.seq.Column-1) + strings.TrimSuffix(line, "\n") + b.eol)
	}
	return b.join(b.rows[:row], []byte(text.String()), b.rows[row:]), true
}

// first moves an item to the front.
func (s splice) first(from int) ([]byte, bool) {
	if s.seq.Style&yamlnode.FlowStyle != 0 {
		return s.firstFlow(from)
	}
	b := s.block()
	front, begin, end := b.start(0), b.start(from), b.end(from)
	return b.join(b.rows[:front], b.join(b.rows[begin:end], nil, nil), b.rows[front:begin], b.rows[end:]...), true
}

// block is a sequence in block style.
type block struct {
	rows [][]byte
	eol  string
	seq  *yamlnode.Node
}

func (s splice) block() block {
	b := block{rows: bytes.SplitAfter(s.text, []byte("\n")), eol: "\n", seq: s.seq}
	if bytes.HasSuffix(b.rows[0], []byte("\r\n")) {
		b.eol = "\r\n"
	}
	if last := len(b.rows) - 1; len(b.rows[last]) == 0 {
		b.rows = b.rows[:last]
	}
	return b
}

// start returns the row, from 0, of an item's dash or of the comment above it.
func (b block) start(item int) int {
	row := min(b.seq.Content[item].Line, len(b.rows)) - 1
	for row > 0 && !b.dashed(row) {
		row--
	}
	for row > 0 && comment(b.rows[row-1]) {
		row--
	}
	return row
}

// dashed reports whether a row has a dash of this sequence.
func (b block) dashed(row int) bool {
	at := b.seq.Column - 1
	text := b.rows[row]
	return len(text) > at && text[at] == '-' && (len(text) == at+1 || strings.ContainsRune(" \t\r\n", rune(text[at+1])))
}

// end returns the row after an item. Blank lines and comments after the last item do
// not belong to it.
func (b block) end(item int) int {
	if item+1 < len(b.seq.Content) {
		return b.start(item + 1)
	}
	row := min(b.seq.Content[item].Line, len(b.rows)) - 1
	last := row
	for row++; row < len(b.rows); row++ {
		text := bytes.TrimRight(b.rows[row], " \t\r\n")
		indent := len(text) - len(bytes.TrimLeft(text, " "))
		if len(text) == 0 {
			continue
		}
		if indent < b.seq.Column {
			if comment(text) {
				continue
			}
			break
		}
		last = row
	}
	return last + 1
}

// join concatenates rows, and adds an end of line where it is missing.
func (b block) join(before [][]byte, text []byte, middle [][]byte, after ...[]byte) []byte {
	var all []byte
	add := func(piece []byte) {
		if len(all) > 0 && all[len(all)-1] != '\n' {
			all = append(all, b.eol...)
		}
		all = append(all, piece...)
	}
	for _, row := range before {
		add(row)
	}
	add(text)
	for _, row := range middle {
		add(row)
	}
	for _, row := range after {
		add(row)
	}
	return all
}

func comment(row []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(row, " \t"), []byte("#"))
}
