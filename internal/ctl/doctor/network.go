// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/trousseau-io/trousseau/internal/config"
	"github.com/trousseau-io/trousseau/internal/ctl/text"
	"github.com/trousseau-io/trousseau/internal/ctl/vaultview"
	"github.com/trousseau-io/trousseau/internal/upstream"
	"github.com/trousseau-io/trousseau/internal/vault"
)

// network checks the connection to each address of Vault, layer by layer.
func (e *examination) network(ctx context.Context) {
	for _, v := range e.views {
		address := v.Address()
		u, err := url.Parse(address)
		if err != nil {
			continue // config has checked it
		}
		e.check(ctx, "vault-dns", address, func(ctx context.Context) outcome { return resolve(ctx, u.Hostname()) })
		e.check(ctx, "vault-tcp", address, func(ctx context.Context) outcome { return connect(ctx, u) }, ground("vault-dns", address))
		e.check(ctx, "vault-tls", address, func(ctx context.Context) outcome { return e.handshake(ctx, u) }, ground("vault-tcp", address))
		e.health(ctx, v)
	}
	e.anyOf("vault", "vault-health")
}

// anyOf makes a ground that holds if a check has not failed at every address.
func (e *examination) anyOf(name, check string) {
	for _, v := range e.views {
		if e.usable(v, check) {
			return
		}
	}
	e.cause[name] = e.cause[ground(check, e.views[0].Address())]
}

// usable reports whether a check at an address has not failed.
func (e *examination) usable(v *vaultview.View, check string) bool {
	return e.cause[ground(check, v.Address())] == ""
}

func resolve(ctx context.Context, host string) outcome {
	if _, err := netip.ParseAddr(host); err == nil {
		return ok("%s is an IP address", host)
	}
	addrs, err := net.DefaultResolver.LookupHost(ctx, host)
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return fail("Check the name in vault.address, and /etc/resolv.conf and /etc/hosts on this host. The host cannot resolve the name of a Kubernetes Service.", "%s: no such host", host)
	case err != nil:
		return fail("Check /etc/resolv.conf, and that its name servers answer.", "%s: %s", host, reason(err))
	}
	slices.Sort(addrs)
	return ok("%s resolves to %s", host, strings.Join(addrs, ", "))
}

func connect(ctx context.Context, u *url.URL) outcome {
	began := time.Now()
	conn, err := vault.Connect(ctx, hostPort(u))
	if err != nil {
		return fail("Check that Vault runs there and listens on this port, and that no firewall blocks it.", "%s", reason(err))
	}
	defer conn.Close()
	return ok("connected in %s", time.Since(began).Round(100*time.Microsecond))
}

func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// soon is how long before its expiry a certificate is worth a warning. For a
// short-lived one that is the last third of its life: it should have been renewed
// by then.
func soon(leaf *x509.Certificate) time.Duration {
	return min(30*day, leaf.NotAfter.Sub(leaf.NotBefore)/3)
}

func (e *examination) handshake(ctx context.Context, u *url.URL) outcome {
	if u.Scheme == "http" {
		if (&config.Vault{Address: u.String()}).InTheClear() != "" {
			return warn("Give Vault a certificate, and write https:// in the address.", "the token and every seed travel unencrypted: the address is http, and not on this host")
		}
		return ok("http, on this host")
	}
	conn, name, err := upstream.Config(&e.config.Vault).Handshake(ctx, hostPort(u))
	if err != nil {
		return refusedHandshake(err, name)
	}
	defer conn.Close()
	return chain(conn.ConnectionState(), name)
}

// chain judges the expiry of each certificate of the chain. The name is the one that
// was checked.
func chain(state tls.ConnectionState, name string) outcome {
	certificates := state.PeerCertificates
	if len(state.VerifiedChains) > 0 {
		certificates = state.VerifiedChains[0]
	}
	names := []string{name}
	for i, c := range certificates {
		if left := time.Until(c.NotAfter); left < soon(c) {
			what := "the certificate"
			fix := "Renew Vault's certificate."
			if i > 0 {
				what = fmt.Sprintf("the certificate of its issuer %q", c.Subject.CommonName)
				fix = "Renew that CA and the certificates it issued. First add the new CA to the file of vault.vaultCACert, beside the old one."
			}
			return warn(fix, "%s expires in %s, on %s", what, text.Span(left), c.NotAfter.UTC().Format(time.DateOnly))
		}
		if i > 0 {
			names = append(names, strconv.Quote(c.Subject.CommonName))
		}
	}
	return ok("%s, %s, expires in %s", tls.VersionName(state.Version), strings.Join(names, " issued by "), text.Span(time.Until(certificates[0].NotAfter)))
}

func refusedHandshake(err error, name string) outcome {
	var (
		host      x509.HostnameError
		authority x509.UnknownAuthorityError
		invalid   x509.CertificateInvalidError
		noTLS     tls.RecordHeaderError
	)
	switch {
	case errors.As(err, &host):
		names := slices.Clone(host.Certificate.DNSNames)
		for _, ip := range host.Certificate.IPAddresses {
			names = append(names, ip.String())
		}
		return fail("Set vault.tlsServerName to one of the certificate's names, or issue Vault a certificate with this name.", "the certificate is for %s, not for %s", strings.Join(names, ", "), name)
	case errors.As(err, &authority):
		return fail("Add the certificate of the CA that issued it to the file of vault.vaultCACert.", "the certificate is signed by an unknown authority")
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fail("Renew Vault's certificate, or correct this host's clock.", "the certificate is valid from %s to %s, but the date of this host is %s",
			invalid.Cert.NotBefore.UTC().Format(time.DateOnly), invalid.Cert.NotAfter.UTC().Format(time.DateOnly), time.Now().UTC().Format(time.DateOnly))
	case errors.As(err, &noTLS):
		return fail("Use the port on which Vault speaks TLS, or write http:// if you mean that.", "what listens there does not speak TLS")
	}
	return fail("Check vaultCACert, tlsServerName, clientCert and clientKey, and read Vault's log.", "%s", reason(err))
}
