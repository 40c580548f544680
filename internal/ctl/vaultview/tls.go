// SPDX-License-Identifier: Apache-2.0

package vaultview

import (
	"crypto/tls"
	"crypto/x509"

	"github.com/trousseau-io/trousseau/internal/config"
)

// ClientTLS is how the daemon connects to a host.
func ClientTLS(v *config.Vault, host string) (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host}
	if v.TLSServerName != "" {
		t.ServerName = v.TLSServerName
	}
	if v.CACert != nil {
		t.RootCAs = x509.NewCertPool()
		t.RootCAs.AppendCertsFromPEM(v.CACert)
	}
	if v.ClientCert != nil {
		pair, err := tls.X509KeyPair(v.ClientCert, []byte(v.ClientKey.Reveal()))
		if err != nil {
			return nil, err
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}
