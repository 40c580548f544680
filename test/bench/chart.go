// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"html"
	"math"
	"slices"
	"strconv"
)

// The picture, in pixels: a panel for each method, one beside the other.
const (
	panelWidth, panelHeight = 370, 260 // of the area between the axes
	marginLeft, marginTop   = 64, 64
	gap                     = 80 // between the panels
	width                   = marginLeft + 2*panelWidth + gap + 24
	height                  = marginTop + panelHeight + 52
	labelHeight             = 13
)

// The picture has a light and a dark form. Contenders beyond these colours share the
// last.
const style = `
  .page { fill: #fff }
  text { font: 12px sans-serif; fill: #333 }
  .title { font-weight: bold; font-size: 14px }
  .axis { stroke: #888; fill: none }
  .grid { stroke: #ddd; fill: none }
  .line { stroke-width: 2; fill: none }
  .value { font-size: 11px; paint-order: stroke; stroke: #fff; stroke-width: 3px }
  .c0 { stroke: #666 } .v0 { fill: #666 }
  .c1 { stroke: #0550ae } .v1 { fill: #0550ae }
  .c2 { stroke: #b34700 } .v2 { fill: #b34700 }
  .c3 { stroke: #1a7f37 } .v3 { fill: #1a7f37 }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117 }
    text { fill: #ddd }
    .grid { stroke: #333 }
    .value { stroke: #0d1117 }
    .c0 { stroke: #aaa } .v0 { fill: #aaa }
    .c1 { stroke: #6cb6ff } .v1 { fill: #6cb6ff }
    .c2 { stroke: #f69d50 } .v2 { fill: #f69d50 }
    .c3 { stroke: #57d364 } .v3 { fill: #57d364 }
  }
`

// chart draws the calls per second of each contender against the number of callers,
// as an SVG.
func (r *run) chart() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img">
<title>Calls per second against concurrent callers</title>
<style>%s</style>
<rect class="page" width="100%%" height="100%%"/>
`, width, height, width, height, style)
	x := marginLeft
	for i, name := range r.names {
		fmt.Fprintf(&b, `<path class="line c%d" d="M%d 18h24"/>`, colour(i), x)
		fmt.Fprintf(&b, `<text x="%d" y="22">%s</text>`+"\n", x+30, html.EscapeString(name))
		x += 60 + 8*len(name)
	}
	highest := 0.0
	for _, method := range methods {
		for _, name := range r.names {
			for _, callers := range levels {
				highest = max(highest, rate.middle(r.results.of(name, method, callers)))
			}
		}
	}
	for i, method := range methods {
		fmt.Fprintf(&b, `<g transform="translate(%d %d)">`+"\n", marginLeft+i*(panelWidth+gap), marginTop)
		r.panel(&b, method, ticks(highest))
		fmt.Fprintln(&b, "</g>")
	}
	fmt.Fprintln(&b, "</svg>")
	return b.Bytes()
}

func colour(contender int) int { return min(contender, 3) }

func (r *run) panel(b *bytes.Buffer, method string, ticks []int) {
	y := func(rate float64) float64 {
		return panelHeight * (1 - rate/float64(ticks[len(ticks)-1]))
	}
	x := func(level int) float64 { return panelWidth * (float64(level) + 0.5) / float64(len(levels)) }
	fmt.Fprintf(b, `<text class="title" x="0" y="-14">%s, calls per second</text>`+"\n", method)
	for _, tick := range ticks {
		fmt.Fprintf(b, `<path class="grid" d="M0 %.1fH%d"/><text text-anchor="end" x="-8" y="%.1f">%s</text>`+"\n",
			y(float64(tick)), panelWidth, y(float64(tick))+4, thousands(tick))
	}
	fmt.Fprintf(b, `<path class="axis" d="M0 0V%dH%d"/>`+"\n", panelHeight, panelWidth)
	for i, callers := range levels {
		fmt.Fprintf(b, `<text text-anchor="middle" x="%.1f" y="%d">%d</text>`+"\n", x(i), panelHeight+18, callers)
	}
	fmt.Fprintf(b, `<text text-anchor="middle" x="%d" y="%d">concurrent callers</text>`+"\n", panelWidth/2, panelHeight+38)

	points := make([][]float64, len(levels)) // y by level and contender
	for i, callers := range levels {
		for _, name := range r.names {
			points[i] = append(points[i], y(rate.middle(r.results.of(name, method, callers))))
		}
	}
	for c := range r.names {
		fmt.Fprintf(b, `<path class="line c%d" d="`, colour(c))
		for i := range levels {
			fmt.Fprintf(b, "%c%.1f %.1f", "ML"[min(i, 1)], x(i), points[i][c])
		}
		fmt.Fprintln(b, `"/>`)
		for i := range levels {
			fmt.Fprintf(b, `<circle class="v%d" cx="%.1f" cy="%.1f" r="3"/>`, colour(c), x(i), points[i][c])
		}
		fmt.Fprintln(b)
	}
	for i, callers := range levels {
		for c, at := range above(points[i]) {
			value := int(math.Round(rate.middle(r.results.of(r.names[c], method, callers))))
			fmt.Fprintf(b, `<text class="value v%d" text-anchor="middle" x="%.1f" y="%.1f">%s</text>`+"\n", colour(c), x(i), at, thousands(value))
		}
	}
}

// above places a label over each point of one column, so that none overlaps another.
func above(points []float64) []float64 {
	order := make([]int, len(points)) // lowest point first
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return int(math.Copysign(1, points[b]-points[a])) })
	at, free := make([]float64, len(points)), math.Inf(1)
	for _, i := range order {
		at[i] = min(points[i]-7, free)
		free = at[i] - labelHeight
	}
	return at
}

// ticks returns round numbers from 0 to at least highest.
func ticks(highest float64) []int {
	step := 1
	for i := 0; highest > float64(6*step); i++ {
		step = []int{2, 5, 10}[i%3] * int(math.Pow10(i/3))
	}
	all := []int{0}
	for last := 0; float64(last) < max(highest, 1); {
		last += step
		all = append(all, last)
	}
	return all
}

// thousands writes 12345 as 12,345.
func thousands(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
