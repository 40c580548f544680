// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/internal/config"
	"github.com/trousseau-io/trousseau/internal/daemon/watch"
	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

// TestFileThatConfigurationNamesIsTriedAgain checks that a configuration refused
// because of a file it names, or because of the default ServiceAccount token file,
// is adopted once that file is correct.
func TestFileThatConfigurationNamesIsTriedAgain(t *testing.T) {
	t.Parallel()
	v, err := vaulttest.New(vaulttest.Options{TLS: true, InProcess: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	cert, key := v.IssueClientCert("trousseau")
	const serviceAccount = "/var/run/secrets/kubernetes.io/serviceaccount/token"
	for _, tc := range []struct {
		name, fields string // FILE is the file, CERT a valid certificate
		good         string
	}{
		{"CA", "token: hvs.abc\n  vaultCACert: FILE", string(v.CAPEM())},
		{"client certificate", "token: hvs.abc\n  clientCert: FILE\n  clientKey: KEY", string(cert)},
		{"client key", "clientCert: CERT\n  clientKey: FILE", string(key)},
		{"token", "tokenFile: FILE", "hvs.abc"},
		{"secret ID", "roleID: role\n  secretIDFile: FILE", "secret-id"},
		{"JWT", "jwt: {tokenFile: FILE}", "jwt"},
		{"ServiceAccount", "kubernetes: {role: a, tokenFile: FILE}", "jwt"},
		{"ServiceAccount by default", "kubernetes: {role: a}", "jwt"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			file := filepath.Join(dir, "file")
			write := func(name, text string) {
				t.Helper()
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			write("cert", string(cert))
			write("key", string(key))
			fields := strings.NewReplacer("FILE", file, "CERT", filepath.Join(dir, "cert"), "KEY", filepath.Join(dir, "key")).Replace(tc.fields)
			write("config.yaml", "vault:\n  keynames: [a]\n  address: https://localhost\n  "+fields+"\n")
			w := watch.New(watch.Options[*config.Config]{
				Path:  filepath.Join(dir, "config.yaml"),
				Parse: config.Parse,
				Read: func(name string) ([]byte, error) {
					if name == serviceAccount {
						name = file
					}
					return config.ReadFile(name)
				},
				Poll: 10 * time.Millisecond,
			})
			ctx, cancel := context.WithCancel(context.Background())
			ended := make(chan struct{})
			go func() { defer close(ended); w.Run(ctx) }()
			t.Cleanup(func() { cancel(); <-ended })
			await := func(want string) {
				t.Helper()
				last := "nothing"
				for timeout := time.After(patience); ; {
					select {
					case c := <-w.Contents():
						var mistakes *config.Error
						last = fmt.Sprint(c.Err)
						if regexp.MustCompile(want).MatchString(last) && (c.Value != nil) != errors.As(c.Err, &mistakes) {
							return
						}
					case <-timeout:
						t.Fatalf("got %s, want %s", last, want)
					}
				}
			}
			await("no such file")
			write("file", "not\nright")
			await("not a PEM file|has several lines")
			write("file", tc.good)
			await("<nil>")
		})
	}
}
