// SPDX-License-Identifier: Apache-2.0

package config

import (
	"net/netip"
	"net/url"
	"strings"
)

// InTheClear returns the first address whose connection somebody else could listen to: http, and a host other than
// this one. It returns "" when there is none. Which host is this one is told by the name alone: localhost, a name that
// ends in .localhost (RFC 6761, section 6.3), or a loopback address.
func (v *Vault) InTheClear() string {
	for _, address := range append([]string{v.Address}, v.Addresses...) {
		if u, err := url.Parse(address); err == nil && u.Scheme == "http" && !isLoopback(u.Hostname()) {
			return address
		}
	}
	return ""
}

func isLoopback(host string) bool {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.IsLoopback()
	}
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	return name == "localhost" || strings.HasSuffix(name, ".localhost")
}
