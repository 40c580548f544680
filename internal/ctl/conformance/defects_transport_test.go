// SPDX-License-Identifier: Apache-2.0

package conformance_test

import (
	"bufio"
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/tap"
	"google.golang.org/protobuf/proto"
	kmsapi "k8s.io/kms/apis/v2"
)

// codec is the protobuf codec with another treatment of invalid messages.
type codec struct{ strict, lenient bool }

func (codec) Name() string { return "proto" }

func (codec) Marshal(v any) ([]byte, error) { return proto.Marshal(v.(proto.Message)) }

func (c codec) Unmarshal(data []byte, v any) error {
	message := v.(proto.Message)
	err := proto.Unmarshal(data, message)
	switch {
	case c.lenient:
		return nil
	case c.strict && len(message.ProtoReflect().GetUnknown()) > 0:
		return errors.New("unknown field")
	}
	return err
}

// leak is what lost requests leave behind: a lock, a slot, a connection. The next
// request hangs because of it and also repairs it.
type leak struct {
	method string
	work   time.Duration
	lost   func(*request) bool

	mu   sync.Mutex
	held map[*request]bool
}

// request is a running or lost request.
type request struct {
	ctx context.Context
	// left is the time from its start to its deadline.
	left     time.Duration
	deadline time.Time
	hangs    bool
}

// late selects requests with little time from the start.
func late(r *request) bool { return r.left < timeout/4 && time.Since(r.deadline) < timeout/2 }

// gone selects requests that end before their deadline.
func gone(r *request) bool { return r.ctx.Err() != nil && time.Until(r.deadline) > timeout/4 }

// leaks makes lost requests of a method leak. The requests must be decodable.
func (p *plugin) leaks(method string, work time.Duration, lost func(*request) bool) {
	l := &leak{method: method, work: work, lost: lost, held: make(map[*request]bool)}
	p.options = append(p.options, grpc.InTapHandle(l.arrive), grpc.UnaryInterceptor(l.pass))
}

type requestKey struct{}

// arrive records a request. It is called in the order in which a connection's
// requests were sent, regardless of when they are handled, if at all.
func (l *leak) arrive(ctx context.Context, info *tap.Info) (context.Context, error) {
	if info.FullMethodName != l.method {
		return ctx, nil
	}
	deadline, _ := ctx.Deadline()
	r := &request{ctx: ctx, left: time.Until(deadline), deadline: deadline}
	l.mu.Lock()
	defer l.mu.Unlock()
	for other := range l.held {
		r.hangs = r.hangs || l.lost(other)
	}
	l.held[r] = true
	return context.WithValue(ctx, requestKey{}, r), nil
}

// pass wraps the handling of a request.
func (l *leak) pass(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	r, ok := ctx.Value(requestKey{}).(*request)
	switch {
	case !ok:
		return handle(ctx, req)
	case r.hangs:
		<-ctx.Done()
		return nil, ctx.Err()
	}
	<-time.After(l.work)
	l.mu.Lock()
	if !l.lost(r) {
		delete(l.held, r)
	}
	l.mu.Unlock()
	return handle(ctx, req)
}

// shareDecrypts answers a Decrypt with the answer of another one that is running on
// the same connection, if both are a pair.
func (p *plugin) shareDecrypts(pair func(a, b *kmsapi.DecryptRequest) bool) {
	type leader struct {
		ctx    context.Context
		req    *kmsapi.DecryptRequest
		conn   any
		joined chan struct{}
	}
	p.options = append(p.options, grpc.StatsHandler(connections{}))
	var mu sync.Mutex
	var first *leader
	decrypt := p.decrypt
	p.decrypt = func(ctx context.Context, req *kmsapi.DecryptRequest) (*kmsapi.DecryptResponse, error) {
		conn := ctx.Value(connKey{})
		mu.Lock()
		if first != nil && first.conn == conn && first.ctx.Err() == nil {
			other := first
			first = nil
			mu.Unlock()
			close(other.joined)
			resp, err := decrypt(ctx, req)
			if err == nil && pair(req, other.req) {
				clear(resp.Plaintext)
			}
			return resp, err
		}
		me := &leader{ctx, req, conn, make(chan struct{})}
		first = me
		mu.Unlock()
		select {
		case <-me.joined:
		case <-time.After(2 * time.Millisecond):
			mu.Lock()
			if first == me {
				first = nil
			}
			mu.Unlock()
		}
		return decrypt(ctx, req)
	}
}

type connKey struct{}

// connections tags requests with their connection.
type connections struct{}

func (connections) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context {
	return context.WithValue(ctx, connKey{}, new(byte))
}
func (connections) HandleConn(context.Context, stats.ConnStats)                     {}
func (connections) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }
func (connections) HandleRPC(context.Context, stats.RPCStats)                       {}

// bindToConnection decrypts only what was encrypted on the same connection.
func (p *plugin) bindToConnection() {
	p.options = append(p.options, grpc.StatsHandler(connections{}))
	var made sync.Map
	encrypt := p.encrypt
	p.encrypt = func(ctx context.Context, req *kmsapi.EncryptRequest) (*kmsapi.EncryptResponse, error) {
		resp, err := encrypt(ctx, req)
		made.Store(string(resp.GetCiphertext()), ctx.Value(connKey{}))
		return resp, err
	}
	p.beforeDecrypt(func(ctx context.Context, req *kmsapi.DecryptRequest) error {
		if where, ok := made.Load(string(req.GetCiphertext())); ok && where != ctx.Value(connKey{}) {
			return invalid("made elsewhere")
		}
		return nil
	})
}

// atMost closes surplus connections.
func atMost(n int) func(net.Listener) net.Listener {
	return func(l net.Listener) net.Listener { return &limited{Listener: l, slots: make(chan struct{}, n)} }
}

type limited struct {
	net.Listener
	slots chan struct{}
}

func (l *limited) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case l.slots <- struct{}{}:
			return &counted{Conn: conn, leave: sync.OnceFunc(func() { <-l.slots })}, nil
		default:
			conn.Close()
		}
	}
}

type counted struct {
	net.Conn
	leave func()
}

func (c *counted) Close() error {
	c.leave()
	return c.Conn.Close()
}

// oneAfterTheOther accepts the next connection only after data has arrived on the
// previous one.
func oneAfterTheOther(l net.Listener) net.Listener { return waiting{l} }

type waiting struct{ net.Listener }

func (w waiting) Accept() (net.Conn, error) {
	for {
		conn, err := w.Listener.Accept()
		if err != nil {
			return nil, err
		}
		r := bufio.NewReader(conn)
		if _, err := r.Peek(1); err == nil {
			return buffered{conn, r}, nil
		}
		conn.Close()
	}
}

type buffered struct {
	net.Conn
	r *bufio.Reader
}

func (b buffered) Read(p []byte) (int, error) { return b.r.Read(p) }
