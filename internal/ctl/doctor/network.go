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
	"github.com/trousseau-io/trousseau/internal/ctl/vaultview"
)

// network goes the way to each address of Vault, and keeps the first one that is
// usable.
func (e *examination) network(ctx context.Context) {
	addresses := append([]string{e.config.Vault.Address}, e.config.Vault.Addresses...)
	for _, address := range addresses {
		u, err := url.Parse(address)
		if err != nil {
			continue // config has checked it
		}
		e.check(ctx, "vault-dns", address, func(ctx context.Context) outcome { return resolve(ctx, u.Hostname()) })
		e.check(ctx, "vault-tcp", address, func(ctx context.Context) outcome { return connect(ctx, u) }, ground("vault-dns", address))
		e.check(ctx, "vault-tls", address, func(ctx context.Context) outcome { return e.handshake(ctx, u) }, ground("vault-tcp", address))
		e.health(ctx, address)
	}
	if e.vault == nil {
		e.cause["vault"] = ground("vault-health", addresses[0])
		if first := e.cause[ground("vault-health", addresses[0])]; first != "" {
			e.cause["vault"] = first
		}
	}
}

func resolve(ctx context.Context, host string) outcome {
	if _, err := netip.ParseAddr(host); err == nil {
		return ok("%s is an address", host)
	}
	addrs, err := net.DefaultResolver.LookupHost(ctx, host)
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return fail("See whether the name in vault.address is right, and /etc/resolv.conf and /etc/hosts of this host; a name of a Kubernetes Service is not known here.", "%s: no such host", host)
	case err != nil:
		return fail("See /etc/resolv.conf, and whether the name servers there answer.", "%s: %s", host, reason(err))
	}
	slices.Sort(addrs)
	return ok("%s is %s", host, joined(addrs))
}

func connect(ctx context.Context, u *url.URL) outcome {
	began := time.Now()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", hostPort(u))
	if err != nil {
		return fail("See whether Vault runs there and listens at this port, and a firewall between.", "%s", reason(err))
	}
	defer conn.Close()
	return ok("connected within %s", time.Since(began).Round(100*time.Microsecond))
}

func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// soon is when the end of a certificate is near enough to speak of. Of one that
// lives shortly it is the last third of its life, by when it should have been
// renewed.
func soon(leaf *x509.Certificate) time.Duration {
	return min(30*day, leaf.NotAfter.Sub(leaf.NotBefore)/3)
}

func (e *examination) handshake(ctx context.Context, u *url.URL) outcome {
	if u.Scheme == "http" {
		if (&config.Vault{Address: u.String()}).InTheClear() != "" {
			return warn("Give Vault a certificate, and write https.", "the token, and every seed, travel in the clear: http, and not this host")
		}
		return ok("http, within this host")
	}
	t, err := vaultview.ClientTLS(&e.config.Vault, u.Hostname())
	if err != nil {
		return fail("See vaultCACert, clientCert and clientKey.", "%s", reason(err))
	}
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", hostPort(u))
	if err != nil {
		return fail("Run this again.", "%s", reason(err))
	}
	defer raw.Close()
	conn := tls.Client(raw, t)
	if err := conn.HandshakeContext(ctx); err != nil {
		return refusedHandshake(err, t.ServerName)
	}
	return chain(conn.ConnectionState(), t.ServerName)
}

// chain judges the certificates, of which each has to be valid as long as the
// first.
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
				fix = "Renew that CA, and what it has issued, and put it into the file of vault.vaultCACert beside the old one first."
			}
			return warn(fix, "%s ends in %s, on %s", what, span(left), c.NotAfter.UTC().Format(time.DateOnly))
		}
		if i > 0 {
			names = append(names, strconv.Quote(c.Subject.CommonName))
		}
	}
	return ok("%s, %s, ends in %s", tls.VersionName(state.Version), strings.Join(names, " issued by "), span(time.Until(certificates[0].NotAfter)))
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
		return fail("Write vault.tlsServerName, one of the names that it has, or put this one into Vault's certificate.", "the certificate is not for %s, but for %s", name, joined(names))
	case errors.As(err, &authority):
		return fail("Put the certificate of the CA that issued it into the file of vault.vaultCACert.", "nobody that is trusted has issued the certificate")
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fail("Renew Vault's certificate, or set this host's clock.", "the certificate is valid from %s to %s, and here it is %s",
			invalid.Cert.NotBefore.UTC().Format(time.DateOnly), invalid.Cert.NotAfter.UTC().Format(time.DateOnly), time.Now().UTC().Format(time.DateOnly))
	case errors.As(err, &noTLS):
		return fail("Write http:// if that is meant, or the port on which Vault speaks TLS.", "what listens there does not speak TLS")
	}
	return fail("See vaultCACert, tlsServerName, clientCert and clientKey, and Vault's log.", "%s", reason(err))
}
