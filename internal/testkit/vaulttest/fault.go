// SPDX-License-Identifier: Apache-2.0

package vaulttest

import (
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// Cut says where a connection breaks. The zero value does not break it.
type Cut int

const (
	// CutReset resets the connection before Vault has handled the request. Clients see ECONNRESET, or with HTTP/2
	// sometimes EOF; with HTTP/2 it also ends the other requests on the connection.
	CutReset Cut = iota + 1
	// CutBody lets Vault handle the request, sends half of the answer and breaks the connection.
	CutBody
)

// Fault is a fault between a client and Vault. Its parts apply in the order of the fields: delay, then break,
// answer or pass the request on. Faults apply in the order of Inject, up to the first that answers or breaks. They
// come before the seal: a sealed Vault with a fault shows the fault.
type Fault struct {
	// Match selects requests by operation (OpEncrypt, …) and optionally by the request itself. Nil matches every
	// request, including sys/health. It may read r.Body.
	Match func(op string, r *http.Request) bool

	// Times is the number of matching requests to affect; 0 means all until the fault is removed.
	Times int

	// Rate is the probability that a matching request is affected, from a generator seeded with Seed; 0 means all.
	Rate float64
	Seed uint64

	// Delay is how long a request waits. It ends at once if the client disconnects.
	Delay time.Duration

	// Hang holds a request until the fault is removed (the request then proceeds), the client disconnects, or Stop.
	Hang bool

	// Cut breaks the connection.
	Cut Cut

	// Status, if not 0, is sent with Header and Body. An empty Body means Vault's error JSON for that status.
	Status int
	Header http.Header
	Body   string

	// Handle, if not nil, may answer the request itself and then returns true; false passes it on. A panic with
	// http.ErrAbortHandler breaks the connection.
	Handle func(op string, w http.ResponseWriter, r *http.Request) bool
}

// Ops returns a Fault.Match for any of these operations.
func Ops(ops ...string) func(op string, r *http.Request) bool {
	return func(op string, _ *http.Request) bool { return slices.Contains(ops, op) }
}

// faults holds the faults of one node. The zero value is ready for use.
type faults struct {
	faultMu sync.Mutex
	active  []*activeFault
}

type activeFault struct {
	Fault
	random  *rand.Rand // nil if every request is affected
	left    int        // used only if Times > 0
	removed chan struct{}
}

// Inject adds a fault until remove is called. remove is idempotent.
func (f *faults) Inject(fault Fault) (remove func()) {
	a := &activeFault{Fault: fault, left: fault.Times, removed: make(chan struct{})}
	if fault.Rate > 0 {
		// Deliberately reproducible: the test chooses the seed.
		a.random = rand.New(rand.NewPCG(fault.Seed, fault.Seed))
	}
	f.faultMu.Lock()
	defer f.faultMu.Unlock()
	f.active = append(f.active, a)
	return func() { f.remove(a) }
}

// ClearFaults removes every fault and releases hanging requests.
func (f *faults) ClearFaults() {
	f.faultMu.Lock()
	defer f.faultMu.Unlock()
	for _, a := range f.active {
		close(a.removed)
	}
	f.active = nil
}

// Hang makes every request wait until release is called; the requests are then served.
func (f *faults) Hang() (release func()) { return f.Inject(Fault{Hang: true}) }

// Cut resets the connection of the next n requests.
func (f *faults) Cut(n int) (remove func()) { return f.Inject(Fault{Times: n, Cut: CutReset}) }

// FailNext answers the next n requests with this status and body; see Fault.Body for an empty one.
func (f *faults) FailNext(n, status int, body string) (remove func()) {
	return f.Inject(Fault{Times: n, Status: status, Body: body})
}

// FailRate answers a fraction p (0 to 1) of the requests with a 500.
func (f *faults) FailRate(p float64, seed uint64) (remove func()) {
	if p <= 0 {
		return func() {}
	}
	return f.Inject(Fault{Rate: p, Seed: seed, Status: http.StatusInternalServerError, Body: errorJSON(wrapped("internal error"))})
}

// Throttle answers every request like a rate limit quota.
func (f *faults) Throttle() (remove func()) {
	return f.Intercept(func(_ string, w http.ResponseWriter, r *http.Request) bool {
		path := strings.TrimPrefix(r.URL.Path, "/v1/")
		writeRaw(w, http.StatusTooManyRequests, errorJSON("request path \""+path+"\": rate limit quota exceeded"))
		return true
	})
}

// HTML answers every request with 200 and an HTML page, like a captive portal or a wrong address.
func (f *faults) HTML(body string) (remove func()) {
	return f.Inject(Fault{
		Status: http.StatusOK,
		Header: http.Header{"Content-Type": {"text/html; charset=utf-8"}},
		Body:   body,
	})
}

// RedirectTo answers every request with a 307 to the same path at another address, like a standby that cannot
// forward.
func (f *faults) RedirectTo(address string) (remove func()) {
	return f.Intercept(func(_ string, w http.ResponseWriter, r *http.Request) bool {
		to := url.URL{Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery}
		w.Header().Set("Location", strings.TrimSuffix(address, "/")+to.String())
		w.WriteHeader(http.StatusTemporaryRedirect)
		return true
	})
}

// Intercept calls a handler before Vault. It returns true if it has answered, false to pass the request on.
func (f *faults) Intercept(handle func(op string, w http.ResponseWriter, r *http.Request) bool) (remove func()) {
	return f.Inject(Fault{Handle: handle})
}

func (f *faults) remove(a *activeFault) {
	f.faultMu.Lock()
	defer f.faultMu.Unlock()
	if i := slices.Index(f.active, a); i >= 0 {
		f.active = slices.Delete(f.active, i, i+1)
		close(a.removed)
	}
}

// hit decides whether a fault affects this request, and decrements its Times if so.
func (f *faults) hit(a *activeFault, op string, r *http.Request) bool {
	if a.Match != nil && !a.Match(op, r) {
		return false
	}
	f.faultMu.Lock()
	defer f.faultMu.Unlock()
	if a.Times > 0 && a.left == 0 {
		return false
	}
	if a.random != nil && a.random.Float64() >= a.Rate {
		return false
	}
	a.left--
	return true
}

// apply applies the faults that affect a request. It returns whether the request has been answered, and otherwise
// the cut to apply to the answer's body. Rewind resets r.Body to the start.
func (s *Server) apply(op string, w http.ResponseWriter, r *http.Request, rewind func()) (answered bool, cut Cut) {
	s.faultMu.Lock()
	active := slices.Clone(s.active)
	s.faultMu.Unlock()
	for _, a := range active {
		hit := s.hit(a, op, r)
		rewind()
		if !hit {
			continue
		}
		s.hold(r, a)
		switch {
		case a.Cut == CutReset:
			reset(w, r)
		case a.Cut == CutBody:
			return false, CutBody
		case a.Status != 0:
			a.answer(w)
			return true, 0
		case a.Handle != nil:
			if a.Handle(op, w, r) {
				return true, 0
			}
			rewind()
		}
	}
	return false, 0
}

// hold delays a request as its fault requires. It does not return if the client disconnects or the server stops.
func (s *Server) hold(r *http.Request, a *activeFault) {
	if a.Delay <= 0 && !a.Hang {
		return
	}
	stopped := s.stopped()
	if a.Delay > 0 {
		timer := time.NewTimer(a.Delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-a.removed:
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		case <-stopped:
			panic(http.ErrAbortHandler)
		}
	}
	if a.Hang {
		select {
		case <-a.removed:
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		case <-stopped:
			panic(http.ErrAbortHandler)
		}
	}
}

func (a *activeFault) answer(w http.ResponseWriter) {
	for name, values := range a.Header {
		w.Header()[name] = values
	}
	body := a.Body
	switch {
	case body == "":
		body = errorJSON(strings.ToLower(http.StatusText(a.Status)))
	case a.Header.Get("Content-Type") == "" && !json.Valid([]byte(body)):
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	}
	writeRaw(w, a.Status, body)
}

// errorJSON is Vault's error body.
func errorJSON(errors ...string) string {
	if errors == nil {
		errors = []string{}
	}
	// Strings always marshal.
	body, _ := json.Marshal(map[string][]string{"errors": errors})
	return string(body) + "\n"
}

// writeRaw sends a body unchanged, as JSON unless the header has another type.
func writeRaw(w http.ResponseWriter, status int, body string) {
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", "application/json")
	}
	w.WriteHeader(status)
	// An error only means that the client has disconnected.
	_, _ = w.Write([]byte(body))
}
