// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"testing"

	"github.com/trousseau-io/trousseau/internal/ctl/finding"
	"github.com/trousseau-io/trousseau/internal/ctl/reencrypt"
)

// What the audit finds elsewhere is rewritten once more, unless it stays there.
func TestSettled(t *testing.T) {
	type pass struct {
		hash      string
		elsewhere int
		err       error
	}
	for name, c := range map[string]struct {
		passes []pass
		left   int
	}{
		"nothing elsewhere":             {[]pass{{"2", 0, nil}}, 0},
		"a write was on its way":        {[]pass{{"2", 1, nil}, {"2", 0, nil}}, 0},
		"it stays elsewhere":            {[]pass{{"2", 1, nil}, {"2", 1, nil}}, 1},
		"the key was rotated meanwhile": {[]pass{{"2", 3, nil}, {"3", 1, nil}, {"3", 0, nil}}, 0},
		"it fails":                      {[]pass{{"2", 3, nil}, {"", 0, errors.New("no etcd")}}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			runs := 0
			r, _, err := settled(func() (reencrypted, []finding.Finding, error) {
				if runs == len(c.passes) {
					t.Fatal("it runs once too often")
				}
				p := c.passes[runs]
				runs++
				return reencrypted{Report: reencrypt.Report{KeyIDHash: p.hash}, Elsewhere: p.elsewhere}, nil, p.err
			})
			if last := c.passes[len(c.passes)-1]; runs != len(c.passes) || r.Elsewhere != c.left || !errors.Is(err, last.err) {
				t.Errorf("got %+v, %v after %d runs, want %d elsewhere after %d", r, err, runs, c.left, len(c.passes))
			}
		})
	}
}
