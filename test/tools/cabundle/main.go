// SPDX-License-Identifier: Apache-2.0

// Command cabundle prints the public roots of trust, those of Mozilla's NSS, as
// PEM: the image's /etc/ssl/certs/ca-certificates.crt. go.sum pins them, to the
// byte, so that who builds an image does not take whatever is on the machine.
//
// Roots that NSS trusts only in part are left out, since a PEM file cannot say
// so: they are on their way out, and whoever reads the file would trust them in
// full.
package main

import (
	"bufio"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"os"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

func main() {
	if err := write(os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "cabundle: %v\n", err)
		os.Exit(1)
	}
}

func write(w io.Writer) error {
	out := bufio.NewWriter(w)
	for root := range bundle.Roots() {
		if root.Constraint != nil {
			continue
		}
		cert, err := x509.ParseCertificate(root.Certificate)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "# %s\n", cert.Subject)
		if err := pem.Encode(out, &pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}); err != nil {
			return err
		}
	}
	return out.Flush()
}
