// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"reflect"
	"testing"
)

// TestJUnit writes every kind of result, with texts that would break XML, and reads it
// with a parser.
func TestJUnit(t *testing.T) {
	const hostile = `a <b attr="x"> & ]]> ' ` + "\x00\x1b[31m\xff\n" + `end`
	const readable = `a <b attr="x"> & ]]> '   [31m` + "\ufffd" + ` end`
	var file bytes.Buffer
	err := writeJUnit(&file, "Doctor", []testCase{
		{"one", "group", 0.25, casePassed, "fine"},
		{hostile, "group", 1.5, caseFailed, hostile},
		{"three", "other", 0, caseSkipped, hostile},
		{"four", "other", 0, caseWarned, hostile},
	}, errors.New(hostile))
	if err != nil {
		t.Fatal(err)
	}
	var got junitSuite
	if err := xml.Unmarshal(file.Bytes(), &got); err != nil {
		t.Fatalf("%v in %s", err, file.String())
	}
	failed := &junitMessage{readable, readable}
	want := junitSuite{
		XMLName: xml.Name{Local: "testsuite"}, Name: "trousseauctl Doctor", Tests: 5, Failures: 1, Errors: 1, Skipped: 1, Time: "1.750",
		Cases: []junitCase{
			{Name: "one", Class: "group", Time: "0.250", Out: "fine"},
			{Name: readable, Class: "group", Time: "1.500", Failure: failed},
			{Name: "three", Class: "other", Time: "0.000", Skipped: &junitMessage{Message: readable}},
			{Name: "four", Class: "other", Time: "0.000", Out: "warning: " + readable},
			{Name: "completed", Class: "Doctor", Time: "0.000", Error: failed},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v\nin %s", got, want, file.String())
	}
}
