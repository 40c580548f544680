// SPDX-License-Identifier: Apache-2.0

// Package audit tests `trousseauctl audit` with data written by kube-apiserver's and
// etcd's own code, and with real servers.
package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"testing"

	"github.com/trousseau-io/trousseau/internal/ctl/finding"
	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// report collects a row from every scenario.
var report testbed.Report

func TestMain(m *testing.M) { os.Exit(testbed.Main(m, &report)) }

// found holds the tested fields of an audit report.
type found struct {
	Objects int
	Source  struct {
		Revision      int64
		SHA256        string
		OutsideUnread bool
		Resumptions   []struct{ FromKey string }
	}
	Resources []struct {
		Name                           string
		Objects, InTheClear, Malformed int
		Groups                         []struct {
			Form, Name, KeyID string
			Objects, Seeds    int
		}
	}
	KeyIDs []struct {
		KeyID          string
		Version        int
		Objects, Seeds int
	}
	TransitKeys  []struct{ MinDecryptionVersionMayBecome int }
	Unattributed []struct{ Version, Objects int } `json:"unattributedVersions"`
	Drill        *struct{ Seeds, Readable, Lost, LostObjects, Unknown, UnknownObjects int }
	Unreadable   []struct{ Key, Remove string }
	Findings     []finding.Finding `json:"-"` // beside the report
}

// audit runs the command and returns its report and exit code.
func audit(t *testing.T, args ...string) (f found, code int) {
	t.Helper()
	stdout, stderr, code := run(t, append(args, "-o", "json")...)
	if code != 0 && code != 3 {
		t.Fatalf("trousseauctl audit %v: exit code %d: %s", args, code, stderr)
	}
	document := struct {
		Report   *found
		Findings *[]finding.Finding
	}{&f, &f.Findings}
	if err := json.Unmarshal([]byte(stdout), &document); err != nil {
		t.Fatal(err)
	}
	return f, code
}

func run(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	path, err := testbed.Trousseauctl()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), path, append([]string{"audit"}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// byKeyID counts the objects under each key_id.
func (f found) byKeyID() map[string]int {
	counts := make(map[string]int)
	for _, k := range f.KeyIDs {
		counts[k.KeyID] = k.Objects
	}
	return counts
}
