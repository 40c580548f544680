// SPDX-License-Identifier: Apache-2.0

// Matrix runs the core scenarios against several versions of Kubernetes, and of Vault
// or what is compatible with it. `make matrix` runs it.
//
// Each column is one combination of servers, built by test/tools/build. KUBE and
// VAULT, as there, select a single column; OPENBAO is the path of an OpenBao, whose
// column then is one of all. A column that has run replaces its predecessor in
// results.json and in docs/compatibility.md. The exit code is 1 if a column has
// failed, after all have run.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// choice is what test/tools/build takes.
type choice struct{ kube, vault string }

// choices returns the columns to run. All are the default, and each module beside it
// in tools, such as kubernetes-1.36 and vault-1.9.
func choices(tools, kube, vault, openbao string) ([]choice, error) {
	if kube != "" || vault != "" {
		return []choice{{kube, vault}}, nil
	}
	all := []choice{{}}
	for _, name := range []string{"kubernetes", "vault"} {
		modules, err := filepath.Glob(filepath.Join(tools, name+"-*"))
		if err != nil {
			return nil, err
		}
		slices.SortFunc(modules, func(a, b string) int { return -byNumber(a, b) })
		for _, module := range modules {
			_, version, _ := strings.Cut(filepath.Base(module), "-")
			if name == "vault" {
				all = append(all, choice{vault: version})
			} else {
				all = append(all, choice{kube: version})
			}
		}
	}
	if openbao != "" {
		all = append(all, choice{vault: openbao})
	}
	return all, nil
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	m := matrix{results: "matrix/results.json", page: "../docs/compatibility.md", logs: "../bin/log", out: os.Stdout}
	chosen, err := choices("tools", os.Getenv("KUBE"), os.Getenv("VAULT"), os.Getenv("OPENBAO"))
	if err == nil {
		err = m.run(ctx, chosen)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "matrix: %v\n", err)
		os.Exit(1)
	}
}

// matrix runs in the directory test/.
type matrix struct {
	results, page string // files
	logs          string // directory for what the tests print
	out           io.Writer
}

// run runs the columns one by one, and writes the files after each.
func (m matrix) run(ctx context.Context, chosen []choice) error {
	var all results
	var failed []error
	for _, c := range chosen {
		ran, err := m.column(ctx, c)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			failed = append(failed, err)
			continue
		}
		if ran.failed() {
			failed = append(failed, errors.New(ran.title()+" has failed"))
		}
		if all, err = m.keep(ran); err != nil {
			return err
		}
	}
	if len(all.Columns) > 0 {
		fmt.Fprintln(m.out)
		all.table(m.out)
	}
	return errors.Join(failed...)
}

// keep writes the column to results.json and the page, and returns all columns.
func (m matrix) keep(c column) (results, error) {
	all, err := load(m.results)
	if err != nil {
		return all, err
	}
	all.merge(c)
	if err := all.save(m.results); err != nil {
		return all, err
	}
	before, err := os.ReadFile(m.page)
	if err != nil {
		return all, err
	}
	after, err := all.page(string(before))
	if err != nil {
		return all, fmt.Errorf("%s: %w", m.page, err)
	}
	return all, os.WriteFile(m.page, []byte(after), 0o600)
}

// column builds what is missing, and runs the core scenarios.
func (m matrix) column(ctx context.Context, c choice) (column, error) {
	build := exec.CommandContext(ctx, "tools/build")
	build.Env = append(os.Environ(), "KUBE="+c.kube, "VAULT="+c.vault)
	build.Stderr = os.Stderr
	printed, err := build.Output()
	if err != nil {
		return column{}, fmt.Errorf("building the servers: %w", err)
	}
	tools := strings.TrimSpace(string(printed))
	ran, err := describe(ctx, tools)
	if err != nil {
		return ran, err
	}
	ran.Date = time.Now().UTC().Format(time.DateOnly)
	fmt.Fprintf(m.out, "\nKubernetes %s, %s %s\n", ran.Kubernetes, ran.Product, ran.Version)

	var names []string
	for _, s := range core {
		names = append(names, s.test)
	}
	test := exec.CommandContext(ctx, "go", "test", "-json", "-count=1", "-p=1", "-timeout=30m",
		"-run=^("+strings.Join(names, "|")+")$", "./e2e", "./ctl", "./audit")
	test.Env = append(os.Environ(), "TROUSSEAU_E2E="+tools)
	test.Stderr = os.Stderr
	// Otherwise the servers would be killed, but not the tests themselves.
	test.Cancel = func() error { return test.Process.Signal(os.Interrupt) }
	output, err := test.StdoutPipe()
	if err != nil {
		return ran, err
	}
	if err := os.MkdirAll(m.logs, 0o750); err != nil {
		return ran, err
	}
	log, err := os.Create(filepath.Join(m.logs, strings.NewReplacer(", ", "-", " ", "-").Replace(ran.title())+".log"))
	if err != nil {
		return ran, err
	}
	defer log.Close()
	if err := test.Start(); err != nil {
		return ran, err
	}
	ran.Scenarios, err = read(output, log, m.out)
	// It fails if a test does, which read has reported.
	_ = test.Wait()
	if err == nil && ran.failed() {
		fmt.Fprintf(m.out, "the whole output is in bin/log/%s\n", filepath.Base(log.Name()))
	}
	return ran, err
}

// product matches what `vault version` and `bao version` print.
var product = regexp.MustCompile(`^(Vault|OpenBao) v([0-9]+\.[0-9]+\.[0-9]+)`)

// describe asks the programs for their versions.
func describe(ctx context.Context, tools string) (c column, err error) {
	say := func(name string, args ...string) string {
		out, failed := exec.CommandContext(ctx, name, args...).CombinedOutput()
		if failed != nil && err == nil {
			err = fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), failed, out)
		}
		return strings.TrimSpace(string(out))
	}
	c.Kubernetes = strings.TrimPrefix(say(filepath.Join(tools, "kube-apiserver"), "--version"), "Kubernetes v")
	etcd, _, _ := strings.Cut(say(filepath.Join(tools, "etcd"), "--version"), "\n")
	c.Etcd = strings.TrimPrefix(etcd, "etcd Version: ")
	c.Go = say("go", "env", "GOVERSION")
	c.Commit = say("git", "describe", "--always", "--dirty", "--abbrev=12")
	said := say(filepath.Join(tools, "vault"), "version")
	if err != nil {
		return c, err
	}
	named := product.FindStringSubmatch(said)
	if named == nil {
		return c, fmt.Errorf("%s/vault version: %q names neither Vault nor OpenBao", tools, said)
	}
	c.Product, c.Version = named[1], named[2]
	return c, nil
}
