// SPDX-License-Identifier: Apache-2.0

package vaultview

import (
	"context"
	"net/http"
	"time"
)

// Health is what sys/health says.
type Health struct {
	Initialized *bool  `json:"initialized"`
	Sealed      bool   `json:"sealed"`
	Standby     bool   `json:"standby"`
	Version     string `json:"version"`
	Enterprise  *bool  `json:"enterprise"` // OpenBao has no such field

	// Date is that of the answer; zero if it has none.
	Date time.Time `json:"-"`
	// Took is how long that was under way.
	Took time.Duration `json:"-"`
}

// Product names which of the two answers.
func (h Health) Product() string {
	switch {
	case h.Enterprise == nil:
		return "OpenBao, or a Vault before 1.16"
	case *h.Enterprise:
		return "Vault Enterprise"
	}
	return "Vault"
}

// Health asks how it is, whatever that is.
func (v *View) Health(ctx context.Context) (h Health, err error) {
	began := time.Now()
	header, err := v.ask(ctx, http.MethodGet, "", "sys/health?standbyok=true&perfstandbyok=true", nil, &h,
		http.StatusTooManyRequests, 472, 473, http.StatusNotImplemented, http.StatusServiceUnavailable)
	if err != nil {
		return h, err
	}
	h.Took = time.Since(began)
	h.Date, _ = http.ParseTime(header.Get("Date"))
	if h.Initialized == nil {
		return h, errNotVault
	}
	return h, nil
}
