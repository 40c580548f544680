// SPDX-License-Identifier: Apache-2.0

// Command vault serves a fake Vault on the loopback interface until it is told to
// end, and writes what Trousseau needs to use it into a directory: config.yaml and
// the certificate that it names.
//
//	vault /tmp/config /etc/trousseau
//
// The second argument is where Trousseau will see that directory.
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

// write renames a file into place. Everybody may read it, since it is another user who has to: nothing in it is worth
// anything.
func write(dir, name string, content []byte) error {
	temp := filepath.Join(dir, "."+name)
	if err := os.WriteFile(temp, content, 0o644); err != nil {
		return err
	}
	return os.Rename(temp, filepath.Join(dir, name))
}
