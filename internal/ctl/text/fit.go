// SPDX-License-Identifier: Apache-2.0

package text

import (
	"io"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// The width of paragraphs. A longer line is hard to read.
const (
	elsewhere = 80  // if the output is not a terminal
	widest    = 120 // on a terminal, if it is wider
)

// hang marks where the text of a paragraph begins. Its other lines begin there too.
const hang = "\v"

// Paragraph writes s as one paragraph for [Fit], each line after indent. It ignores
// errors: w is what collects the text for Fit.
func Paragraph(w io.Writer, indent, s string) { Hanging(w, indent, s) }

// Hanging writes a paragraph whose first line begins with first. The other lines
// are indented by as many blanks.
func Hanging(w io.Writer, first, s string) {
	_, _ = io.WriteString(w, first+hang+strings.Join(strings.Fields(s), " ")+"\n")
}

// Line is like [Hanging], but where there is no terminal it stays on one line, for
// other programs.
func Line(w io.Writer, first, s string) { _, _ = io.WriteString(w, first+hang+hang+s+"\n") }

// Fit lays out what a command wrote, for a terminal with so many columns, or for
// another output if columns is 0.
//
//   - A paragraph, by [Paragraph], [Hanging] or [Line], is wrapped between words.
//   - A line with tabs is a row of a table, which an empty line ends. On a terminal
//     that is too narrow, cells are wrapped, and if that is not enough, each row
//     continues on further lines. Elsewhere a row is one line, for other programs.
//   - All other lines stay as they are, such as a command to copy.
//
// Nothing is cut off. A word that is longer than a line has a line of its own, which
// the terminal breaks, so that it can still be copied. Colors have no width.
func Fit(s string, columns int) string {
	blocks := strings.Split(s, "\n\n")
	for i, block := range blocks {
		blocks[i] = fitBlock(block, columns)
	}
	return strings.Join(blocks, "\n\n")
}

func fitBlock(block string, columns int) string {
	lines := strings.Split(block, "\n")
	var rows [][]string
	for _, line := range lines {
		if strings.Contains(line, "\t") {
			rows = append(rows, strings.Split(line, "\t"))
		}
	}
	t := newTable(rows, columns)
	for i, line := range lines {
		first, s, found := strings.Cut(line, hang)
		switch {
		case strings.Contains(line, "\t"):
			lines[i] = t.row(strings.Split(line, "\t"))
		case found && columns == 0 && strings.HasPrefix(s, hang):
			lines[i] = first + s[len(hang):]
		case found:
			lines[i] = paragraph(first, s, columns)
		}
	}
	return strings.Join(lines, "\n")
}

func paragraph(first, s string, columns int) string {
	const narrow = 20 // fewer columns than this are no paragraph
	width := min(columns, widest)
	if columns == 0 {
		width = elsewhere
	}
	in := columnsOf(first)
	if width-in < narrow && strings.TrimSpace(first) != "" {
		in = min(4, width/4)
		return strings.TrimRight(first, " ") + "\n" + paragraph(strings.Repeat(" ", in), s, columns)
	}
	return strings.TrimRight(first+strings.Join(wrap(s, width-in), "\n"+strings.Repeat(" ", in)), " ")
}

// wrap breaks s between words into lines of at most width columns. The blanks at its
// beginning indent each line.
func wrap(s string, width int) []string {
	indent := s[:len(s)-len(strings.TrimLeft(s, " "))]
	lines := []string{indent}
	for word := range strings.FieldsSeq(s) {
		switch last := &lines[len(lines)-1]; {
		case *last == indent:
			*last += word
		case columnsOf(*last)+1+columnsOf(word) <= width:
			*last += " " + word
		default:
			lines = append(lines, indent+word)
		}
	}
	return lines
}

// table is how wide the columns of a table are, and which of them share a line.
type table struct {
	widths []int
	bands  [][]int
}

const gap = 2 // between two columns

func newTable(rows [][]string, columns int) table {
	var natural, least []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(natural) {
				natural, least = append(natural, 0), append(least, 0)
			}
			natural[i] = max(natural[i], columnsOf(cell))
			for _, word := range wrap(cell, 0) {
				least[i] = max(least[i], columnsOf(word))
			}
		}
	}
	t := table{widths: slices.Clone(natural), bands: [][]int{nil}}
	// The widest columns lose most.
	for columns > 0 && t.total() > columns {
		i := -1
		for j, width := range t.widths {
			if width > least[j] && (i < 0 || width > t.widths[i]) {
				i = j
			}
		}
		if i < 0 {
			break
		}
		t.widths[i]--
	}
	if columns == 0 || t.total() <= columns {
		for i := range t.widths {
			t.bands[0] = append(t.bands[0], i)
		}
		return t
	}
	// Without wrapping, as many columns on each line as it has room for.
	x := 0
	for i, width := range natural {
		t.widths[i] = max(least[i], min(width, columns-len(further)))
		if x > 0 && x+t.widths[i] > columns {
			t.bands = append(t.bands, nil)
			x = len(further)
		}
		last := len(t.bands) - 1
		t.bands[last] = append(t.bands[last], i)
		x += t.widths[i] + gap
	}
	return t
}

// further indents the further lines of a row.
const further = "    "

func (t table) total() int {
	total := gap * (len(t.widths) - 1)
	for _, width := range t.widths {
		total += width
	}
	return total
}

// row lays out the cells of a row. Lines without text are left out.
func (t table) row(cells []string) string {
	var lines []string
	for n, band := range t.bands {
		wrapped := make([][]string, len(band))
		height := 0
		for i, column := range band {
			if column >= len(cells) {
				break
			}
			if wrapped[i] = []string{cells[column]}; columnsOf(cells[column]) > t.widths[column] {
				wrapped[i] = wrap(cells[column], t.widths[column])
			}
			height = max(height, len(wrapped[i]))
		}
		for l := range height {
			line := strings.Repeat(further, min(n, 1))
			for i, column := range band {
				cell := ""
				if l < len(wrapped[i]) {
					cell = wrapped[i][l]
				}
				line += cell + strings.Repeat(" ", max(0, t.widths[column]-columnsOf(cell))+gap)
			}
			if line = strings.TrimRight(line, " "); line != "" {
				lines = append(lines, line)
			}
		}
	}
	return strings.Join(lines, "\n")
}

// color is an escape sequence of ECMA-48, Select Graphic Rendition.
var color = regexp.MustCompile("\x1b\\[[0-9;]*m")

// columnsOf returns how many columns of a terminal s takes.
func columnsOf(s string) int { return utf8.RuneCountInString(color.ReplaceAllString(s, "")) }
