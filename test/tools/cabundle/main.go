// SPDX-License-Identifier: Apache-2.0

// Command cabundle prints the public root certificates of Mozilla's NSS as PEM: the
// image's /etc/ssl/certs/ca-certificates.crt. go.sum pins their content, so that a
// build does not depend on the machine.
//
// Roots that NSS trusts only partly are omitted: a PEM file cannot express the
// restriction, and its readers would trust them fully.
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
