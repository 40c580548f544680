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

// etcdFlags say where etcd's servers are, and who asks them.
type etcdFlags struct {
	endpoints          []string
	caCert, cert, key  string
	user, passwordFile string
	prefix             string
}

func (f *etcdFlags) register(cmd *cobra.Command, endpoints string) {
	flags := cmd.Flags()
	flags.StringSliceVar(&f.endpoints, "endpoints", nil, endpoints)
	flags.StringVar(&f.caCert, "cacert", "", "the CA of etcd's certificate, a `file` in PEM (--etcd-cafile)")
	flags.StringVar(&f.cert, "cert", "", "the certificate to show to etcd, a `file` in PEM (--etcd-certfile)")
	flags.StringVar(&f.key, "key", "", "its private key, a `file` in PEM (--etcd-keyfile)")
	flags.StringVar(&f.user, "user", "", "the `name` of a user of etcd's, if it wants one")
	flags.StringVar(&f.passwordFile, "password-file", "", "the `file` that holds the user's password")
	flags.StringVar(&f.prefix, "prefix", "/registry", "kube-apiserver's --etcd-prefix")
}

// given reports whether etcd's servers are to be asked.
func (f *etcdFlags) given() bool { return len(f.endpoints) > 0 }

// check reports a mistake on the command line.
func (f *etcdFlags) check() error {
	switch {
	case !f.given() && (f.caCert != "" || f.cert != "" || f.key != "" || f.user != "" || f.passwordFile != ""):
		return errors.New("--cacert, --cert, --key, --user and --password-file go with --endpoints")
	case (f.cert == "") != (f.key == ""):
		return errors.New("--cert needs --key, and --key needs --cert")
	case (f.user == "") != (f.passwordFile == ""):
		return errors.New("--user needs --password-file, and --password-file needs --user")
	case !strings.HasPrefix(f.prefix, "/") || strings.Trim(f.prefix, "/") == "":
		return fmt.Errorf("--prefix: %q does not begin with a slash and a name, as /registry does", f.prefix)
	}
	for _, e := range f.endpoints {
		if !strings.HasPrefix(e, "https://") && !strings.HasPrefix(e, "http://") {
			return fmt.Errorf("--endpoints: %q is no URL such as https://127.0.0.1:2379", e)
		}
	}
	return nil
}

// root is the prefix with one slash on each side.
func (f *etcdFlags) root() string { return "/" + strings.Trim(f.prefix, "/") + "/" }

// dial connects. The caller closes what it returns.
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
