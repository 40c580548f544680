// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/xml"
	"io"
	"strconv"

	"github.com/trousseau-io/trousseau/internal/ctl/text"
)

// testCase is a check and its result, for JUnit's format.
type testCase struct {
	name, group string
	seconds     float64
	result      caseResult
	text        string
}

type caseResult int

const (
	casePassed caseResult = iota
	caseFailed
	caseSkipped
	caseWarned
)

// The elements of JUnit's format, as Jenkins and GitLab read them.
type (
	junitSuite struct {
		XMLName  xml.Name    `xml:"testsuite"`
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Errors   int         `xml:"errors,attr"`
		Skipped  int         `xml:"skipped,attr"`
		Time     string      `xml:"time,attr"`
		Cases    []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Name    string        `xml:"name,attr"`
		Class   string        `xml:"classname,attr"`
		Time    string        `xml:"time,attr"`
		Failure *junitMessage `xml:"failure,omitempty"`
		Error   *junitMessage `xml:"error,omitempty"`
		Skipped *junitMessage `xml:"skipped,omitempty"`
		Out     string        `xml:"system-out,omitempty"`
	}
	junitMessage struct {
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
)

// writeJUnit writes the cases as one suite. Failure is why the command itself failed; a
// file without it would look like success.
func writeJUnit(w io.Writer, suite string, cases []testCase, failure error) error {
	s := junitSuite{Name: "trousseauctl " + suite}
	total := 0.0
	add := func(c testCase) *junitCase {
		total += c.seconds
		s.Tests++
		s.Cases = append(s.Cases, junitCase{Name: text.Printable(c.name), Class: c.group, Time: seconds(c.seconds)})
		return &s.Cases[len(s.Cases)-1]
	}
	for _, c := range cases {
		to := add(c)
		said := text.Printable(c.text)
		switch c.result {
		case caseFailed:
			s.Failures++
			to.Failure = &junitMessage{said, said}
		case caseSkipped:
			s.Skipped++
			to.Skipped = &junitMessage{Message: said}
		case caseWarned:
			to.Out = "warning: " + said
		case casePassed:
			to.Out = said
		}
	}
	if failure != nil {
		s.Errors++
		said := text.Printable(failure.Error())
		add(testCase{name: "completed", group: suite}).Error = &junitMessage{said, said}
	}
	s.Time = seconds(total)
	body, err := xml.MarshalIndent(s, "", "  ")
	if err == nil {
		_, err = w.Write(append([]byte(xml.Header), append(body, '\n')...))
	}
	return err
}

func seconds(s float64) string { return strconv.FormatFloat(s, 'f', 3, 64) }
