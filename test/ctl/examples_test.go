// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"cmp"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// A user runs every example in trousseauctl's help, verbatim.
func TestExamples(t *testing.T) {
	if os.Getenv("TROUSSEAU_E2E") == "" {
		t.Skip("TROUSSEAU_E2E is not set; run `make e2e`")
	}
	program := os.Getenv(programVariable)
	if program == "" {
		again(t)
		return
	}
	bed := testbed.New(t, &report, "8 trousseauctl's examples")
	settle(t, siteAddrs, siteDirs)
	s := newSite(t, bed)
	// The first reencrypt has something to do once the API servers have noticed.
	s.rotate()
	s.admin.env = append(s.admin.env, "PATH="+filepath.Dir(program)+":"+filepath.Dir(bed.Tool("vault"))+":/usr/local/bin:/usr/bin:/bin")
	for _, example := range examples(t, program) {
		s.mustWork(example)
	}
}

// difference describes an example that does not simply end with exit code 0 and
// print to stdout.
type difference struct {
	part      string // part of the example
	code      int    // the exit code
	says      string // part of stdout
	writes    string // a file instead of stdout; stderr explains it
	interrupt bool   // runs until Ctrl-C
	before    func(*site)
	after     func(*site)
}

var differences = []difference{
	{part: " | diff ", code: 1, says: "\n> "}, // exit code of diff, which finds added lines
	{part: " > new.yaml", writes: "new.yaml"},
	{part: " --in-place", writes: "encryption-config.yaml"},
	{part: " --watch", interrupt: true},
	{part: " setup --login ", before: (*site).forgetAgents},
	{part: " --api-server ", before: (*site).rotate},
	{part: "trousseauctl rotate-key ", after: (*site).mustBeRewritten},
	{part: "trousseauctl reencrypt ", before: (*site).awaitAPIServers, after: (*site).mustBeRewritten},
}

// mustWork runs an example in a shell.
func (s *site) mustWork(text string) {
	s.t.Helper()
	s.layOut()
	var d difference
	for _, row := range differences {
		if !strings.Contains(text, row.part) {
			continue
		}
		if row.before != nil {
			row.before(s)
		}
		if row.after != nil {
			defer row.after(s)
		}
		d.code, d.says = cmp.Or(d.code, row.code), cmp.Or(d.says, row.says)
		d.writes, d.interrupt = cmp.Or(d.writes, row.writes), d.interrupt || row.interrupt
	}
	began := time.Now()
	stdout, stderr, code := s.shell(text, d.interrupt)
	s.Observe("%4.1f s  %s", time.Since(began).Seconds(), strings.Join(strings.Fields(strings.ReplaceAll(text, "\\\n", "")), " "))
	switch {
	case code != d.code:
		s.t.Errorf("exit code %d, want %d: %s\n%s%s", code, d.code, text, stdout, stderr)
	case d.writes != "" && (s.read(d.writes) == s.files()[d.writes] || stderr == ""):
		s.t.Errorf("%s is unchanged, or stderr does not mention it: %s\n%s", d.writes, text, stderr)
	case d.writes == "" && stdout == "" || !strings.Contains(stdout, d.says):
		s.t.Errorf("unexpected stdout: %s\n%s%s", text, stdout, stderr)
	case testbed.HoldsToken(stdout + stderr):
		s.t.Errorf("the output contains a token: %s", text)
	}
}

// shell runs a command line as a user types it.
func (s *site) shell(text string, interrupt bool) (stdout, stderr string, code int) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-e", "-o", "pipefail", "-c", text)
	cmd.Dir, cmd.Env = s.dir, s.admin.env
	// As in a terminal, Ctrl-C goes to all processes of a command line.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	var files [2]*os.File
	for i, name := range []string{"stdout", "stderr"} {
		var err error
		if files[i], err = os.Create(filepath.Join(s.Dir, name)); err != nil {
			s.t.Fatal(err)
		}
		defer files[i].Close()
	}
	cmd.Stdout, cmd.Stderr = files[0], files[1]
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // the exit code is checked instead
		close(ended)
	}()
	if interrupt {
		s.Await(time.Minute, "an output of "+text, func(context.Context) error {
			select {
			case <-ended:
				return nil
			default:
			}
			if info, err := files[0].Stat(); err != nil || info.Size() == 0 {
				return errors.New("no output")
			}
			return nil
		})
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) // it may already have ended
	}
	<-ended
	return s.read(files[0].Name()), s.read(files[1].Name()), cmd.ProcessState.ExitCode()
}

// examples returns the examples of all commands, in the order of the help.
func examples(t *testing.T, program string, command ...string) (all []string) {
	t.Helper()
	help, err := exec.CommandContext(t.Context(), program, append(command, "--help")...).Output()
	if err != nil {
		t.Fatalf("the help of %v: %v", command, err)
	}
	text := ""
	for _, line := range section(string(help), "Examples:") {
		text += line
		// A comment belongs to the following line, as does a continued line.
		if code := strings.TrimSpace(line); code != "" && code[0] != '#' && !strings.HasSuffix(code, "\\") {
			all = append(all, strings.TrimSpace(text))
			text = ""
		}
	}
	own := []string{"completion", "help"} // cobra's commands, without examples
	if len(command) == 1 && len(all) == 0 && !slices.Contains(own, command[0]) {
		t.Errorf("trousseauctl %s has no example", command[0])
	}
	for _, line := range section(string(help), "Available Commands:") {
		if name := strings.Fields(line); len(name) > 0 {
			all = append(all, examples(t, program, append(slices.Clone(command), name[0])...)...)
		}
	}
	return all
}

// section returns the lines below a heading, up to the next one.
func section(help, heading string) (lines []string) {
	_, below, _ := strings.Cut("\n"+help, "\n"+heading+"\n")
	for line := range strings.Lines(below) {
		if !strings.HasPrefix(line, " ") && line != "\n" {
			break
		}
		lines = append(lines, line)
	}
	return lines
}
