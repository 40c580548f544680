// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/xml"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

// measured makes a run in which each contender has these calls per second with one
// caller, and more with more callers.
func measured(rates map[string]float64) *run {
	r := &run{results: make(results)}
	for _, name := range []string{directly, through, before} {
		if rates[name] == 0 {
			continue
		}
		r.names = append(r.names, name)
		for _, method := range methods {
			for i, callers := range levels {
				r.results.add(name, method, callers, sample{rate: rates[name] * float64(i+1)})
			}
		}
	}
	return r
}

func TestChart(t *testing.T) {
	picture := measured(map[string]float64{directly: 1000, through: 3456, before: 990}).chart()
	var texts []string
	for d := xml.NewDecoder(strings.NewReader(string(picture))); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("the picture is not XML: %v", err)
		}
		if text, ok := token.(xml.CharData); ok {
			texts = append(texts, strings.TrimSpace(string(text)))
		}
	}
	for _, want := range []string{
		"direct", "trousseau", "before", "Encrypt, calls per second", "Decrypt, calls per second", "concurrent callers",
		"1", "4", "16", "64", "128", "256", // callers
		"0", "5,000", "25,000", // axis
		"1,000", "6,000", "3,456", "20,736", "990", "5,940", // first and last points
	} {
		if !slices.Contains(texts, want) {
			t.Errorf("the picture lacks the text %q", want)
		}
	}
}

func TestLabelsDoNotOverlap(t *testing.T) {
	for _, points := range [][]float64{
		{100}, {250, 250, 250}, {250, 245, 130}, {120, 250, 249, 251, 119}, {3, 2, 1},
	} {
		at := above(points)
		for i := range at {
			if at[i] >= points[i] {
				t.Errorf("above(%v): label %d at %v is not above its point", points, i, at[i])
			}
			for j := range i {
				if d := at[i] - at[j]; d > -labelHeight && d < labelHeight {
					t.Errorf("above(%v) = %v: labels %d and %d overlap", points, at, i, j)
				}
			}
		}
	}
}

func TestTicks(t *testing.T) {
	for highest, want := range map[float64][]int{
		0:      {0, 1},
		5:      {0, 1, 2, 3, 4, 5},
		999:    {0, 200, 400, 600, 800, 1000},
		8000:   {0, 2000, 4000, 6000, 8000},
		5942:   {0, 1000, 2000, 3000, 4000, 5000, 6000},
		21_000: {0, 5000, 10_000, 15_000, 20_000, 25_000},
	} {
		if got := ticks(highest); !slices.Equal(got, want) {
			t.Errorf("ticks(%v) = %v, want %v", highest, got, want)
		}
	}
}

func TestShort(t *testing.T) {
	for d, want := range map[time.Duration]string{
		1234 * time.Nanosecond:  "1µs",
		1234 * time.Microsecond: "1.23ms",
		1234 * time.Millisecond: "1.234s",
	} {
		if got := short(d); got != want {
			t.Errorf("short(%d) = %s, want %s", d, got, want)
		}
	}
}
