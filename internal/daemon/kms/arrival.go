// SPDX-License-Identifier: Apache-2.0

package kms

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"
)

// refusal is how long a request that will be refused may take to arrive.
const refusal = 50 * time.Millisecond

// arrival is a request that has begun, and may never be whole.
type arrival struct {
	conn    *conn
	refused bool
	// stop ends the watch for its end. It is false if that has come already.
	stop func() bool
}

type arrivalKey struct{}

// begin is around a request before grpc waits for its message. Without a
// deadline here, grpc would wait until the connection ends.
//
// It never returns an error, because then grpc (v1.85, operateHeaders) does not
// release the timer of the caller's own deadline, which may be years away.
func (s *Server) begin(ctx context.Context, _ *tap.Info) (context.Context, error) {
	c, ok := connOf(ctx)
	if !ok {
		return ctx, nil
	}
	a := arrival{conn: c, refused: !s.crowd.begin(c)}
	limit := s.timeout
	if a.refused {
		limit = min(limit, refusal)
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	a.stop = context.AfterFunc(ctx, func() {
		cancel()
		if !a.refused {
			s.crowd.end(c)
		}
	})
	return context.WithValue(ctx, arrivalKey{}, a), nil
}

// arrive is around a request once its message has been read.
func (s *Server) arrive(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if a, ok := ctx.Value(arrivalKey{}).(arrival); ok {
		if a.stop() && !a.refused {
			defer s.crowd.end(a.conn)
		}
		if a.refused {
			handler = refuse
		}
	}
	return s.intercept(ctx, req, info, handler)
}

func refuse(context.Context, any) (any, error) {
	const problem = "too many requests at once"
	return nil, &failure{status.New(codes.ResourceExhausted, problem), errors.New(problem)}
}
