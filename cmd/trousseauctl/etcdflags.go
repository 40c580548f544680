// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/trousseau-io/trousseau/internal/ctl/etcd"
)

// etcdFlags say how to reach etcd's servers.
type etcdFlags struct {
	endpoints          []string
	caCert, cert, key  string
	user, passwordFile string
	prefixes           []string
}

func (f *etcdFlags) register(cmd *cobra.Command, endpoints string) {
	flags := cmd.Flags()
	flags.StringSliceVar(&f.endpoints, "endpoints", nil, endpoints)
	flags.StringVar(&f.caCert, "cacert", "", "PEM `file` with the CA of etcd's certificate (kube-apiserver's --etcd-cafile)")
	flags.StringVar(&f.cert, "cert", "", "PEM `file` with the client certificate for etcd (kube-apiserver's --etcd-certfile)")
	flags.StringVar(&f.key, "key", "", "PEM `file` with the private key of --cert (kube-apiserver's --etcd-keyfile)")
	flags.StringVar(&f.user, "user", "", "etcd user `name`, if authentication is enabled")
	flags.StringVar(&f.passwordFile, "password-file", "", "`file` with the password of --user")
	flags.StringSliceVar(&f.prefixes, "prefix", []string{"/registry"}, "`prefix` of the keys, kube-apiserver's --etcd-prefix; may be repeated")
}

// given reports whether etcd's servers are given.
func (f *etcdFlags) given() bool { return len(f.endpoints) > 0 }

// check reports a mistake on the command line.
func (f *etcdFlags) check() error {
	switch {
	case !f.given() && (f.caCert != "" || f.cert != "" || f.key != "" || f.user != "" || f.passwordFile != ""):
		return errors.New("--cacert, --cert, --key, --user and --password-file need --endpoints")
	case (f.cert == "") != (f.key == ""):
		return errors.New("--cert needs --key, and --key needs --cert")
	case (f.user == "") != (f.passwordFile == ""):
		return errors.New("--user needs --password-file, and --password-file needs --user")
	case len(f.prefixes) == 0:
		return errors.New("--prefix: give at least one, such as /registry")
	}
	for _, p := range f.prefixes {
		if !strings.HasPrefix(p, "/") || strings.Trim(p, "/") == "" {
			return fmt.Errorf("--prefix: %q does not begin with a slash and a name, such as /registry", p)
		}
	}
	if err := etcd.CheckPrefixes(f.roots()); err != nil {
		return fmt.Errorf("--prefix: %w", err)
	}
	for _, e := range f.endpoints {
		if !isURL(e) {
			return fmt.Errorf("--endpoints: %q is not a URL such as https://127.0.0.1:2379", e)
		}
	}
	return nil
}

// isURL reports whether s begins as an HTTP URL.
func isURL(s string) bool { return strings.HasPrefix(s, "https://") || strings.HasPrefix(s, "http://") }

// roots returns the prefixes with one slash on each side.
func (f *etcdFlags) roots() []string {
	roots := make([]string, len(f.prefixes))
	for i, p := range f.prefixes {
		roots[i] = "/" + strings.Trim(p, "/") + "/"
	}
	return roots
}

// dial connects. The caller must close the result.
func (f *etcdFlags) dial(ctx context.Context, progress etcd.Progress) (*etcd.Live, error) {
	options := etcd.Options{Endpoints: f.endpoints, User: f.user, Progress: progress}
	var err error
	if options.TLS, err = etcd.TLS(f.caCert, f.cert, f.key); err != nil {
		return nil, err
	}
	if f.passwordFile != "" {
		text, err := os.ReadFile(f.passwordFile)
		if err != nil {
			return nil, fmt.Errorf("--password-file: %w", err)
		}
		options.Password = strings.TrimRight(string(text), "\r\n")
	}
	return etcd.Dial(ctx, options)
}
