// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// event is a line of `go test -json` (go doc test2json).
type event struct {
	Action, Test, Output string
	Elapsed              float64 // seconds
}

// logged matches what a test logs, with the file and line of the test.
var logged = regexp.MustCompile(`^\s+\w+_test\.go:[0-9]+: (.*)`)

// read follows the output of `go test -json` until its end, and returns how each of
// the core scenarios ended. What the tests print goes to log, and each end to out.
func read(output io.Reader, log, out io.Writer) (map[string]result, error) {
	ended, last := make(map[string]result), make(map[string]string)
	lines := bufio.NewReader(output)
	for {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		var e event
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fmt.Errorf("go test -json: %w in %s", err, line)
		}
		if _, err := io.WriteString(log, e.Output); err != nil {
			return nil, err
		}
		if found := logged.FindStringSubmatch(e.Output); found != nil {
			// A scenario that fails does so after what it has observed.
			last[e.Test] = strings.TrimSpace(found[1])
		}
		i := slices.IndexFunc(core, func(s scenario) bool { return s.test == e.Test })
		if i < 0 || !slices.Contains([]string{pass, fail, skip}, e.Action) {
			continue
		}
		r := result{Result: e.Action, Seconds: e.Elapsed}
		if e.Action != pass {
			r.Reason = last[e.Test]
		}
		ended[core[i].name] = r
		fmt.Fprintf(out, "%-20s %8s  %s\n", core[i].name, r.cell(), r.Reason)
	}
	all := make(map[string]result)
	for _, s := range core {
		all[s.name] = result{Result: none, Reason: "it has not run to its end"}
	}
	maps.Copy(all, ended)
	return all, nil
}
