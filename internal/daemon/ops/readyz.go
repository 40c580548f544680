// SPDX-License-Identifier: Apache-2.0

package ops

import (
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
)

// Check is one condition of readiness.
type Check struct {
	// Name is one word, shown on /readyz.
	Name string
	// Check returns nil when the condition holds and otherwise the reason, which is shown to whoever asks: it must
	// hold no secret. It is called on every request, by several at once, so it must be quick and do no I/O.
	Check func() error
}

type readiness struct {
	Ready  bool     `json:"ready"`
	Checks []result `json:"checks"`
}

type result struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Reason string `json:"reason,omitempty"`
}

func ask(checks []Check) readiness {
	r := readiness{Ready: true, Checks: []result{}}
	for _, c := range checks {
		err := c.Check()
		if err == nil {
			r.Checks = append(r.Checks, result{Name: c.Name, OK: true})
			continue
		}
		r.Ready = false
		r.Checks = append(r.Checks, result{Name: c.Name, Reason: err.Error()})
	}
	return r
}

// String is the form of the API server's own /readyz?verbose (k8s.io/apiserver/pkg/server/healthz), with the reason.
func (r readiness) String() string {
	if len(r.Checks) == 0 {
		return "ok\n"
	}
	var b strings.Builder
	for _, c := range r.Checks {
		if c.OK {
			fmt.Fprintf(&b, "[+]%s ok\n", c.Name)
		} else {
			// A joined error has a line per cause; the page has a line per check.
			fmt.Fprintf(&b, "[-]%s: %s\n", c.Name, strings.ReplaceAll(c.Reason, "\n", "; "))
		}
	}
	return b.String()
}

func readyz(checks []Check) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		now := ask(checks)
		asJSON := wantsJSON(r)
		contentType := "text/plain; charset=utf-8"
		if asJSON {
			contentType = "application/json"
		}
		w.Header().Set("Content-Type", contentType)
		if !now.Ready {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		// A client that hangs up early is no news.
		if asJSON {
			_ = json.NewEncoder(w).Encode(now)
		} else {
			_, _ = io.WriteString(w, now.String())
		}
	}
}

func wantsJSON(r *http.Request) bool {
	if r.URL.Query().Has("verbose") {
		return true
	}
	for accept := range strings.SplitSeq(strings.Join(r.Header.Values("Accept"), ","), ",") {
		if mediaType, _, err := mime.ParseMediaType(accept); err == nil && mediaType == "application/json" {
			return true
		}
	}
	return false
}
