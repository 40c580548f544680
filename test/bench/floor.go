// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	kmsapi "k8s.io/kms/apis/v2"
)

// empty answers Status with nothing.
type empty struct {
	kmsapi.UnimplementedKeyManagementServiceServer
}

func (empty) Status(context.Context, *kmsapi.StatusRequest) (*kmsapi.StatusResponse, error) {
	return &kmsapi.StatusResponse{}, nil
}

// floor measures what the machine and gRPC cost: a Status that does nothing,
// over a unix socket within this process.
func floor(ctx context.Context, _ string) error {
	const calls = 5_000
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "floor.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	kmsapi.RegisterKeyManagementServiceServer(server, empty{})
	go func() { _ = server.Serve(l) }()
	defer server.Stop()
	conn, err := grpc.NewClient("unix://"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	client := kmsapi.NewKeyManagementServiceClient(conn)
	var took []time.Duration
	for range calls {
		began := time.Now()
		if _, err := client.Status(ctx, &kmsapi.StatusRequest{}); err != nil {
			return err
		}
		took = append(took, time.Since(began))
	}
	report(fmt.Sprintf("floor: an empty gRPC call, p50 / p99 of %d", calls), "%v / %v", quantile(took, 0.5), quantile(took, 0.99))
	return nil
}
