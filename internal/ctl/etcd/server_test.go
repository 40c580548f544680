// SPDX-License-Identifier: Apache-2.0

package etcd_test

import (
	"context"
	"net"
	"slices"
	"sync"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
)

// server is an etcd that serves ranges over a real connection. Its values are
// constant, but its revision grows.
type server struct {
	pb.UnimplementedKVServer
	endpoint string

	mu        sync.Mutex
	objects   []*mvccpb.KeyValue // in order
	revision  int64
	compacted int64
	limits    []int64 // requested limits
	before    func(s *server, r *pb.RangeRequest) error
}

// newServer serves n objects under /r/ with values of the given size.
func newServer(t *testing.T, n, size int) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{endpoint: "http://" + l.Addr().String(), revision: 1000}
	for i := range n {
		s.objects = append(s.objects, &mvccpb.KeyValue{Key: name(i), Value: make([]byte, size), ModRevision: int64(i + 1)})
	}
	g := grpc.NewServer()
	pb.RegisterKVServer(g, s)
	go func() { _ = g.Serve(l) }()
	t.Cleanup(g.Stop)
	return s
}

func (s *server) Range(_ context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.before != nil {
		if err := s.before(s, r); err != nil {
			return nil, err
		}
	}
	if r.Revision != 0 && r.Revision < s.compacted {
		return nil, rpctypes.ErrGRPCCompacted
	}
	found := slices.Clone(s.objects)
	found = slices.DeleteFunc(found, func(kv *mvccpb.KeyValue) bool {
		return string(kv.Key) < string(r.Key) || string(r.RangeEnd) != "\x00" && string(kv.Key) >= string(r.RangeEnd)
	})
	answer := &pb.RangeResponse{Header: &pb.ResponseHeader{Revision: s.revision}, Count: int64(len(found))}
	if r.CountOnly {
		return answer, nil
	}
	s.limits = append(s.limits, r.Limit)
	if r.Limit > 0 && int64(len(found)) > r.Limit {
		found, answer.More = found[:r.Limit], true
	}
	answer.Kvs = found
	return answer, nil
}
