// SPDX-License-Identifier: Apache-2.0

package conformance_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode"

	kmsapi "k8s.io/kms/apis/v2"

	"github.com/trousseau-io/trousseau/internal/ctl/conformance"
	"github.com/trousseau-io/trousseau/internal/ctl/finding"
	"github.com/trousseau-io/trousseau/internal/endpoint"
)

const (
	// timeout bounds a call in tests where some calls are never answered.
	timeout = 3 * time.Second
	// patient bounds a call where all calls are answered, even on a machine that
	// pauses.
	patient = 30 * time.Second
)

// unquiet are the checks that measure time; on a busy machine they may report
// anything as slow.
var unquiet = []string{"encrypt-latency", "decrypt-latency"}

// run runs the checks selected by only, or all if it is empty.
func run(t *testing.T, e endpoint.Endpoint, only string) conformance.Report {
	t.Helper()
	return runWithin(t, e, only, patient)
}

func runWithin(t *testing.T, e endpoint.Endpoint, only string, timeout time.Duration) conformance.Report {
	t.Helper()
	o := conformance.Options{Endpoint: e, Timeout: timeout}
	if only != "" {
		o.Run = regexp.MustCompile(only)
	}
	report, err := conformance.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// check compares a report's broken rules with the wanted ones.
func check(t *testing.T, report conformance.Report, want []string, blocks bool) {
	t.Helper()
	for _, f := range report.Checks {
		wanted := conformance.Pass
		if slices.Contains(want, f.Name) {
			wanted = conformance.Fail
			if f.Level == conformance.Should {
				wanted = conformance.Warn
			}
		}
		switch {
		case f.Result == wanted,
			f.Result == conformance.Skip && blocks && wanted == conformance.Pass,
			f.Result == conformance.Warn && slices.Contains(unquiet, f.Name):
		default:
			t.Errorf("%s: got %s (%s), want %s", f.Name, f.Result, f.Detail, wanted)
		}
		if f.Detail == "" {
			t.Errorf("%s: no detail for %s", f.Name, f.Result)
		}
		if wanted != conformance.Pass && f.Result == wanted && f.Advice == "" {
			t.Errorf("%s: no advice for: %s", f.Name, f.Detail)
		}
	}
}

func TestGoodPlugin(t *testing.T) {
	start := time.Now()
	report := run(t, newPlugin().serve(t), "")
	check(t, report, nil, false)
	if len(report.Checks) != len(conformance.Checks()) {
		t.Errorf("got %d results, want one for each of %d checks", len(report.Checks), len(conformance.Checks()))
	}
	if finding.Problem(report.Findings) || report.Failed+report.Skipped > 0 || report.Passed+report.Warned != len(report.Checks) {
		t.Errorf("got %+v, want a conformant plugin", report)
	}
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("it took %s, want 30s at most", took)
	}
}

// TestDefects enables one defect at a time.
func TestDefects(t *testing.T) {
	for _, d := range defects() {
		t.Run(strings.ReplaceAll(d.name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			p := newPlugin()
			d.put(p)
			within := patient
			if d.hangs {
				within = timeout
			}
			report := runWithin(t, p.serve(t), d.only, within)
			check(t, report, d.fails, d.blocks)
			must := slices.ContainsFunc(conformance.Checks(), func(c conformance.Check) bool {
				return c.Level == conformance.Must && slices.Contains(d.fails, c.Name)
			})
			if finding.Problem(report.Findings) != must {
				t.Errorf("got %+v with %v, want an error: %t", report.Findings, d.fails, must)
			}
		})
	}
}

func TestEachCheckHasADefect(t *testing.T) {
	alone := make(map[string]bool)
	for _, d := range defects() {
		for _, name := range d.fails {
			alone[name] = alone[name] || len(d.fails) == 1
		}
	}
	for _, c := range conformance.Checks() {
		if _, found := alone[c.Name]; !found {
			t.Errorf("%s: no defect makes it fail", c.Name)
		}
		delete(alone, c.Name)
	}
	for name := range alone {
		t.Errorf("%s: named in a defect, but there is no such check", name)
	}
}

func TestChecksAreWhole(t *testing.T) {
	kebab := regexp.MustCompile(`^[a-z]+(-[a-z]+)+$`)
	seen := make(map[string]bool)
	for _, c := range conformance.Checks() {
		if !kebab.MatchString(c.Name) || seen[c.Name] {
			t.Errorf("%s: want a unique name in kebab-case", c.Name)
		}
		seen[c.Name] = true
		if c.Level != conformance.Must && c.Level != conformance.Should {
			t.Errorf("%s: level is %q", c.Name, c.Level)
		}
		if c.Group == "" || !strings.HasSuffix(c.Rule, ".") || c.Source == "" {
			t.Errorf("%s: want a group, a rule that is a sentence, and a source; got %q, %q, %q", c.Name, c.Group, c.Rule, c.Source)
		}
	}
}

// TestSelection selects a check without its prerequisite, and deselects one.
func TestSelection(t *testing.T) {
	p := newPlugin()
	o := conformance.Options{
		Endpoint: p.serve(t), Timeout: patient,
		Run: regexp.MustCompile("^decrypt-"), Skip: regexp.MustCompile("latency|size|again"),
	}
	report, err := conformance.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range report.Checks {
		got = append(got, f.Name+" "+string(f.Result))
	}
	if want := []string{"decrypt-round-trip pass", "decrypt-any-bytes pass"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestUnjudgedIsNotConformant covers a failing prerequisite that is not selected.
func TestUnjudgedIsNotConformant(t *testing.T) {
	p := newPlugin()
	defects()[slices.IndexFunc(defects(), func(d defect) bool { return d.name == "Encrypt is an error" })].put(p)
	report := run(t, p.serve(t), "^decrypt-any-bytes$")
	if len(report.Checks) != 1 || report.Checks[0].Result != conformance.Skip || !finding.Problem(report.Findings) {
		t.Errorf("got %+v, want one check that is skipped, and no conformance", report)
	}
	if got := report.Checks[0].Detail; !strings.Contains(got, "encrypt-answers") || !strings.Contains(got, "not yet") {
		t.Errorf("detail: got %q, want what is needed and what is wrong there", got)
	}
}

func TestNotAPlugin(t *testing.T) {
	t.Run("nothing there", func(t *testing.T) {
		fails(t, filepath.Join(socketDir(t), "kms.sock"), syscall.ENOENT, "start the plugin on this host, or give the endpoint that is in EncryptionConfiguration")
	})
	t.Run("left over", func(t *testing.T) {
		path := filepath.Join(socketDir(t), "kms.sock")
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		l.Close()
		fails(t, path, syscall.ECONNREFUSED, "no process listens on the socket")
	})
	t.Run("a file", func(t *testing.T) {
		path := filepath.Join(socketDir(t), "kms.sock")
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		fails(t, path, syscall.ECONNREFUSED, "")
	})
}

func fails(t *testing.T, path string, want error, advice string) {
	t.Helper()
	_, err := conformance.Run(t.Context(), conformance.Options{Endpoint: at(t, path), Timeout: timeout})
	if !errors.Is(err, want) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), advice) {
		t.Errorf("got %v, want %v at %s and the advice %q", err, want, path, advice)
	}
}

// TestNoGRPC uses a server that accepts connections and never answers.
func TestNoGRPC(t *testing.T) {
	path := filepath.Join(socketDir(t), "kms.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	start := time.Now()
	report, err := conformance.Run(t.Context(), conformance.Options{Endpoint: at(t, path), Timeout: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("it took %s", took)
	}
	for _, f := range report.Checks {
		if (f.Name == "status-answers" || f.Name == "encrypt-answers") != (f.Result == conformance.Fail) {
			t.Errorf("%s: got %s (%s)", f.Name, f.Result, f.Detail)
		}
	}
	if !finding.Problem(report.Findings) {
		t.Error("reported as conformant")
	}
}

func TestCanceled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	p := newPlugin()
	p.beforeDecrypt(func(ctx context.Context, _ *kmsapi.DecryptRequest) error {
		cancel()
		<-ctx.Done()
		return ctx.Err()
	})
	_, err := conformance.Run(ctx, conformance.Options{Endpoint: p.serve(t), Timeout: time.Minute})
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "decrypt-round-trip") {
		t.Errorf("got %v, want that it was stopped, and where", err)
	}
}

func TestAbstractSocket(t *testing.T) {
	p := newPlugin()
	e := p.serveAbstract(t)
	report := run(t, e, "^(status|socket)-")
	check(t, report, []string{"socket-mode"}, true)
}

// TestDetailsArePrintable checks that a plugin's texts cannot control a terminal.
func TestDetailsArePrintable(t *testing.T) {
	p := newPlugin()
	p.rename("kek-\x1b[2J1\n")
	p.onStatus(func(r *kmsapi.StatusResponse) { r.Healthz = "\x1b[31mill" })
	for _, f := range run(t, p.serve(t), "^status-").Checks {
		if strings.ContainsFunc(f.Detail, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%s: %q", f.Name, f.Detail)
		}
	}
}
