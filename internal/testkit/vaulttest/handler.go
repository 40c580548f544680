// SPDX-License-Identifier: Apache-2.0

package vaulttest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"strconv"
	"strings"
)

// maxBody is Vault's default max_request_size.
const maxBody = 32 << 20

// Handler returns the server without a listener, including faults and counts.
func (s *Server) Handler() http.Handler { return http.HandlerFunc(s.serveHTTP) }

func (s *Server) serveHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.HasPrefix(r.URL.Path, "/v1/") {
		http.NotFound(w, r)
		return
	}
	rt := s.store.route(r.Method, r.Header.Get("X-Vault-Namespace"), r.URL.Path)
	defer s.arrived(rt.op)()

	// Read the body before any fault: net/http notices a disconnected client only after the body has been read.
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	rewind := func() { r.Body = io.NopCloser(bytes.NewReader(body)) }
	rewind()
	in := &request{route: rt, token: tokenOf(r), peer: r.TLS, lag: int(s.lag.Load())}
	mistake := in.read(body, err)
	s.store.secrets.note(in)
	answered, cut := s.apply(rt.op, w, r, rewind)
	if answered {
		return
	}
	var out rendered
	if s.forward != nil {
		out = s.forward(s, r, body)
	} else {
		out = s.answer(in, r, mistake)
	}
	w.Header().Set("Cache-Control", "no-store")
	maps.Copy(w.Header(), out.header)
	if cut == CutBody {
		sendHalf(w, out)
	}
	if out.body == "" {
		w.WriteHeader(out.status)
		return
	}
	writeRaw(w, out.status, out.body)
}

// answer is the answer of a healthy Vault. Mistake is the error in the body, nil if there is none.
func (s *Server) answer(in *request, r *http.Request, mistake *reply) rendered {
	switch {
	case in.op == OpHealth || in.op == OpSealStatus:
		return s.status(in.route, r)
	case s.sealed.Load() || s.uninitialized.Load():
		return refuse(http.StatusServiceUnavailable, "Vault is sealed").render()
	case s.drSecondary.Load():
		return refuse(http.StatusBadRequest, "path disabled in replication DR secondary mode").render()
	case mistake != nil:
		return mistake.render()
	}
	return s.store.serve(in).render()
}

func tokenOf(r *http.Request) string {
	if token := r.Header.Get("X-Vault-Token"); token != "" {
		return token
	}
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	return token
}

// read parses the body into in.fields. err is the error of reading the body, if any.
func (in *request) read(body []byte, err error) (mistake *reply) {
	const parsing = "error parsing JSON: failed to parse JSON input: "
	in.fields = &fields{}
	var tooLarge *http.MaxBytesError
	var refused reply
	switch {
	case errors.As(err, &tooLarge):
		refused = refuse(http.StatusRequestEntityTooLarge, parsing+"http: request body too large")
	case err != nil:
		refused = refuse(http.StatusBadRequest, "error reading data")
	default:
		parsed, err := parseFields(body)
		if err == nil {
			in.fields = parsed
			return nil
		}
		refused = refuse(http.StatusBadRequest, parsing+err.Error())
		if errors.Is(err, io.ErrUnexpectedEOF) {
			refused = refuse(http.StatusInternalServerError, "malformed JSON, unclosed containers")
		}
	}
	return &refused
}

// connKey is the context key of the request's connection.
type connKey struct{}

func withConn(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, conn)
}

// belowTLS returns the connection that TLS runs on, or conn if there is no TLS.
func belowTLS(conn net.Conn) net.Conn {
	if over, ok := conn.(interface{ NetConn() net.Conn }); ok {
		return over.NetConn()
	}
	return conn
}

// reset resets the connection. It does not return.
func reset(w http.ResponseWriter, r *http.Request) {
	if rec, ok := w.(*recorder); ok {
		// In process there is no connection; a connection in the context belongs to a Proxy's client.
		rec.reset = true
		panic(http.ErrAbortHandler)
	}
	conn, _ := r.Context().Value(connKey{}).(net.Conn)
	if tcp, ok := belowTLS(conn).(*net.TCPConn); ok {
		// Linger 0 makes Close send RST instead of FIN. With HTTP/2 this also ends the other streams, as a reset does.
		_ = tcp.SetLinger(0)
		_ = tcp.Close()
	}
	panic(http.ErrAbortHandler)
}

// sendHalf announces the full Content-Length and sends half of the answer. It does not return.
func sendHalf(w http.ResponseWriter, out rendered) {
	if out.body == "" {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(out.body)))
	w.WriteHeader(out.status)
	_, _ = io.WriteString(w, out.body[:len(out.body)/2])
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

// rendered is an answer ready to be sent; the body may be empty.
type rendered struct {
	status int
	body   string
	header http.Header // additional fields; may be nil
}

// reply is an answer before rendering.
type reply struct {
	status   int      // 0 means 200, or 204 when there is neither data nor auth
	errors   []string // for status >= 400 without data
	data     map[string]any
	auth     map[string]any
	warnings []string
	mount    string // mount_type
}

// refuse returns an error reply.
func refuse(status int, errors ...string) reply {
	return reply{status: status, errors: errors}
}

// wrapped formats errors as Vault does after its request handling (hashicorp/go-multierror).
func wrapped(errors ...string) string {
	noun := " error"
	if len(errors) != 1 {
		noun = " errors"
	}
	return strconv.Itoa(len(errors)) + noun + " occurred:\n\t* " + strings.Join(errors, "\n\t* ") + "\n\n"
}

func (r reply) render() rendered {
	if r.status >= http.StatusBadRequest && r.data == nil && r.warnings == nil {
		return rendered{status: r.status, body: errorJSON(r.errors...)}
	}
	if r.data == nil && r.auth == nil && r.warnings == nil {
		return rendered{status: http.StatusNoContent}
	}
	return render(cmp.Or(r.status, http.StatusOK), struct {
		RequestID     string         `json:"request_id"`
		LeaseID       string         `json:"lease_id"`
		Renewable     bool           `json:"renewable"`
		LeaseDuration int            `json:"lease_duration"`
		Data          map[string]any `json:"data"`
		WrapInfo      any            `json:"wrap_info"`
		Warnings      []string       `json:"warnings"`
		Auth          map[string]any `json:"auth"`
		MountType     string         `json:"mount_type"`
	}{RequestID: newUUID(), Data: r.data, Warnings: r.warnings, Auth: r.auth, MountType: r.mount})
}

func render(status int, v any) rendered {
	body, err := json.Marshal(v)
	if err != nil {
		// KV data is always valid JSON: it came as JSON or from a test's map.
		return rendered{status: http.StatusInternalServerError, body: errorJSON(wrapped("internal error"))}
	}
	return rendered{status: status, body: string(body) + "\n"}
}
