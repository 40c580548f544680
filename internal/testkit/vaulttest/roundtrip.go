// SPDX-License-Identifier: Apache-2.0

package vaulttest

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
)

// RoundTripper reaches the server without a network: the handler runs in the caller's goroutine. Faults appear as
// the errors that a socket would return. It starts no goroutine and blocks only on channels and timers, so it may
// be used in a testing/synctest bubble if the server was created inside it with Options.InProcess. Scheme and host
// are ignored.
func (s *Server) RoundTripper() http.RoundTripper { return roundTripper{s} }

type roundTripper struct{ server *Server }

func (rt roundTripper) RoundTrip(req *http.Request) (*http.Response, error) {
	body := req.Body
	if body == nil {
		body = http.NoBody
	}
	// http.RoundTripper requires that the body is always closed.
	defer func() { _ = body.Close() }()
	if err := req.Context().Err(); err != nil {
		return nil, err
	}
	if !rt.server.reachable() {
		return nil, socketError("dial", "connect", syscall.ECONNREFUSED)
	}
	in := req.Clone(req.Context())
	in.Body = io.NopCloser(body)
	in.RequestURI = req.URL.RequestURI()
	rec := &recorder{header: http.Header{}}
	aborted := rec.run(rt.server.Handler(), in)
	switch {
	case req.Context().Err() != nil && aborted:
		return nil, req.Context().Err()
	case rec.reset:
		return nil, socketError("read", "read", syscall.ECONNRESET)
	case aborted && rec.status == 0:
		return nil, io.EOF
	}
	return rec.response(req, aborted), nil
}

func socketError(op, call string, errno syscall.Errno) error {
	return &net.OpError{Op: op, Net: "tcp", Err: os.NewSyscallError(call, errno)}
}

// recorder is the http.ResponseWriter of an in-process request.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
	reset  bool
}

func (r *recorder) Header() http.Header { return r.header }

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
}

func (r *recorder) Write(p []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	return r.body.Write(p)
}

// run calls the handler and reports whether it aborted; http.Server would then close the connection.
func (r *recorder) run(h http.Handler, in *http.Request) (aborted bool) {
	defer func() {
		if v := recover(); v != nil {
			if err, ok := v.(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
				panic(v)
			}
			aborted = true
		}
	}()
	h.ServeHTTP(r, in)
	return false
}

func (r *recorder) response(req *http.Request, aborted bool) *http.Response {
	r.WriteHeader(http.StatusOK)
	length := int64(r.body.Len())
	var body io.Reader = &r.body
	if aborted {
		body, length = io.MultiReader(body, brokenReader{}), -1
	}
	return &http.Response{
		Status:        http.StatusText(r.status),
		StatusCode:    r.status,
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
		Header:        r.header,
		Body:          io.NopCloser(body),
		ContentLength: length,
		Request:       req,
	}
}

// brokenReader is the end of a body that is shorter than its Content-Length.
type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
