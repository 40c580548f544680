// SPDX-License-Identifier: Apache-2.0

package vaulttest

import (
	"net/http"
	"net/url"
	"strconv"
)

// Version is what sys/health reports.
const Version = "1.21.0"

// Seal seals this node: everything but sys/health and sys/seal-status answers 503.
func (s *Server) Seal() { s.sealed.Store(true) }

// Unseal undoes Seal.
func (s *Server) Unseal() { s.sealed.Store(false) }

// SetInitialized tells whether the node has ever been initialized, which a new one is. One that is not answers like a
// sealed one, and sys/health says 501.
func (s *Server) SetInitialized(initialized bool) { s.uninitialized.Store(!initialized) }

// SetStandby makes sys/health report a standby, 429. The node goes on serving, as a standby does that forwards requests
// to the active node (or reads its own copy: see SetLag).
func (s *Server) SetStandby(standby bool) { s.standby.Store(standby) }

// SetLag makes this node answer as if the last n rotations of every key had not reached it: an eventually consistent
// standby. It reports and encrypts with the older version, and calls ciphertexts of the newer ones too new. It never
// lags below version 1 or min_decryption_version.
func (s *Server) SetLag(n int) { s.lag.Store(int64(n)) }

// status answers sys/health and sys/seal-status, which need no token and work when sealed.
func (s *Server) status(rt route, r *http.Request) rendered {
	if rt.namespace != "" {
		// Paths that exist in the root namespace only.
		return refuse(http.StatusNotFound, wrapped("unsupported path")).render()
	}
	initialized := !s.uninitialized.Load()
	sealed := s.sealed.Load() || !initialized
	if rt.op == OpSealStatus {
		return render(http.StatusOK, map[string]any{
			"type": "shamir", "initialized": initialized, "sealed": sealed, "t": 1, "n": 1, "progress": 0, "nonce": "",
			"version": Version, "build_date": "2025-10-21T19:33:13Z", "migration": false, "recovery_seal": false,
			"storage_type": "inmem",
		})
	}
	standby := s.standby.Load()
	query := r.URL.Query()
	code, what := http.StatusOK, "activecode"
	switch {
	case !initialized:
		code, what = http.StatusNotImplemented, "uninitcode"
	case sealed:
		code, what = http.StatusServiceUnavailable, "sealedcode"
	case standby && !asked(query, "standbyok"):
		code, what = http.StatusTooManyRequests, "standbycode"
	}
	if query.Has(what) {
		n, err := strconv.Atoi(query.Get(what))
		if err != nil || n < 200 || n > 599 {
			return refuse(http.StatusBadRequest).render()
		}
		code = n
	}
	return render(code, map[string]any{
		"initialized": initialized, "sealed": sealed, "standby": standby, "performance_standby": false,
		"replication_performance_mode": "disabled", "replication_dr_mode": "disabled",
		"server_time_utc": s.store.now().Unix(), "version": Version, "enterprise": false,
		"cluster_name": "vault-cluster-test", "cluster_id": "00000000-0000-0000-0000-000000000000",
		"echo_duration_ms": 0, "clock_skew_ms": 0, "replication_primary_canary_age_ms": 0,
	})
}

// asked reports whether a boolean query parameter is set.
func asked(query url.Values, name string) bool {
	v, err := strconv.ParseBool(query.Get(name))
	return err == nil && v
}
