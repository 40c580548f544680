// SPDX-License-Identifier: Apache-2.0

package vaulttest

import "strings"

// systemOp tells what a request below sys/ or auth/ wants, and of what.
func systemOp(method, path string) (op, name string) {
	switch method + " " + path {
	case "GET auth/token/lookup-self":
		return OpLookupSelf, ""
	case "GET auth/token/lookup", "POST auth/token/lookup":
		return OpLookup, ""
	case "POST auth/token/lookup-accessor":
		return OpLookupAccessor, ""
	case "POST auth/token/renew-self":
		return OpRenewSelf, ""
	case "POST auth/token/revoke-self":
		return OpRevokeSelf, ""
	case "POST auth/token/revoke-accessor":
		return OpRevokeAccessor, ""
	case "POST auth/token/create", "POST auth/token/create-orphan":
		return OpCreateToken, ""
	case "POST sys/capabilities-self":
		return OpCapabilities, ""
	case "GET sys/health", "HEAD sys/health":
		return OpHealth, ""
	case "GET sys/seal-status":
		return OpSealStatus, ""
	case "GET sys/mounts":
		return OpListMounts, ""
	case "GET sys/auth":
		return OpListAuth, ""
	}
	for _, below := range []struct{ prefix, op string }{
		{"POST sys/mounts/", OpMount},
		{"POST sys/auth/", OpEnableAuth},
		{"GET sys/policies/acl/", OpReadPolicy},
		{"POST sys/policies/acl/", OpWritePolicy},
	} {
		if name, ok := strings.CutPrefix(method+" "+path, below.prefix); ok && name != "" {
			return below.op, name
		}
	}
	return OpOther, ""
}
