// SPDX-License-Identifier: Apache-2.0

package vaulttest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// fields is a request body, read as leniently as Vault reads it: a number may be a string, a list may be one
// comma-separated string, a duration may be seconds or "1h". The first mistake is kept, so that a handler may read
// everything and check once at the end.
type fields struct {
	values  map[string]any
	mistake string // Vault's error text; empty if there was none
}

func parseFields(body []byte) (*fields, error) {
	f := &fields{}
	if len(bytes.TrimSpace(body)) == 0 {
		return f, nil
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	if err := decoder.Decode(&f.values); err != nil {
		return nil, err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("trailing data")
	}
	return f, nil
}

// lifetime reads a duration as the token store does, which has its own error texts.
func (f *fields) lifetime(name string) time.Duration {
	text := f.text(name)
	if n, err := strconv.Atoi(text); err == nil {
		text = (time.Duration(n) * time.Second).String()
	}
	if text == "" || f.mistake != "" {
		return 0
	}
	d, err := time.ParseDuration(text)
	switch {
	case err != nil:
		f.mistake = err.Error()
	case d < 0:
		f.mistake = name + " must be positive"
	}
	return d
}

// has reports whether the body has the field with a value other than null.
func (f *fields) has(name string) bool { return f.values[name] != nil }

func (f *fields) text(name string) string {
	switch v := f.values[name].(type) {
	case nil:
		return ""
	case string:
		return v
	case json.Number:
		return v.String()
	default:
		f.wrong(name)
		return ""
	}
}

func (f *fields) number(name string) int {
	text := f.text(name)
	if text == "" {
		return 0
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		f.wrong(name)
	}
	return n
}

func (f *fields) flag(name string, absent bool) bool {
	if v, ok := f.values[name].(bool); ok {
		return v
	}
	text := f.text(name)
	if text == "" {
		return absent
	}
	v, err := strconv.ParseBool(text)
	if err != nil {
		f.wrong(name)
	}
	return v
}

func (f *fields) duration(name string) time.Duration {
	text := f.text(name)
	if text == "" {
		return 0
	}
	var d time.Duration
	if n, err := strconv.Atoi(text); err == nil {
		d = time.Duration(n) * time.Second
	} else if d, err = time.ParseDuration(text); err != nil {
		f.wrong(name, err.Error())
	}
	if d < 0 {
		f.wrong(name, "cannot provide negative value '"+text+"'")
	}
	return d
}

func (f *fields) list(name string) []string {
	items, ok := f.values[name].([]any)
	if !ok {
		text := f.text(name)
		if text == "" {
			return nil
		}
		for item := range strings.SplitSeq(text, ",") {
			items = append(items, strings.TrimSpace(item))
		}
	}
	var list []string
	for _, item := range items {
		text, ok := item.(string)
		if !ok {
			f.wrong(name)
		}
		list = append(list, text)
	}
	return list
}

func (f *fields) object(name string) map[string]any {
	v, ok := f.values[name].(map[string]any)
	if !ok && f.has(name) {
		f.wrong(name)
	}
	return v
}

// validation begins Vault's error about a field. Paths with an existence check fail in that check, without this
// prefix.
const validation = "Field validation failed: "

func (f *fields) wrong(name string, why ...string) {
	if f.mistake == "" {
		f.mistake = fmt.Sprintf("%serror converting input for field %q", validation, name)
		for _, reason := range why {
			f.mistake += ": " + reason
		}
	}
}
