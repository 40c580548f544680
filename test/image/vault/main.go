// SPDX-License-Identifier: Apache-2.0

// Command vault serves a fake Vault on the loopback interface until it is stopped, and writes the files that
// Trousseau needs into a directory: config.yaml and the CA certificate that it names.
//
//	vault /tmp/config /etc/trousseau
//
// The second argument is the path of that directory for Trousseau.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

const key = "trousseau-kms-vault"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "vault: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) != 2 {
		return errors.New("name the directory to write to, and its name in the container")
	}
	vault, err := vaulttest.New(vaulttest.Options{TLS: true})
	if err != nil {
		return err
	}
	defer vault.Close()
	vault.CreateKey(key)
	if err := write(args[0], "ca.pem", vault.CAPEM()); err != nil {
		return err
	}
	if err := write(args[0], "config.yaml", fmt.Appendf(nil,
		"provider: vault\nvault:\n  keynames: [%s]\n  address: %s\n  token: %s\n  vaultCACert: %s\n",
		key, vault.URL(), vault.KMSToken(key), filepath.Join(args[1], "ca.pem"))); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// write renames a file into place. It is world-readable, because another user must read it; the content is not
// secret.
func write(dir, name string, content []byte) error {
	temp := filepath.Join(dir, "."+name)
	if err := os.WriteFile(temp, content, 0o644); err != nil {
		return err
	}
	return os.Rename(temp, filepath.Join(dir, name))
}
