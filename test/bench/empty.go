// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	kmsapi "k8s.io/kms/apis/v2"
)

// emptyServer answers Status with an empty response on the socket given as argument.
const emptyServer = "serve-empty"

func serveEmpty(args []string) error {
	l, err := new(net.ListenConfig).Listen(context.Background(), "unix", strings.Join(args, ""))
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	kmsapi.RegisterKeyManagementServiceServer(server, nothing{})
	return server.Serve(l)
}

type nothing struct {
	kmsapi.UnimplementedKeyManagementServiceServer
}

func (nothing) Status(context.Context, *kmsapi.StatusRequest) (*kmsapi.StatusResponse, error) {
	return &kmsapi.StatusResponse{}, nil
}

// empty is a separate process that runs serveEmpty: a call within one process would
// not include the cost of waking another process.
type empty struct {
	client kmsapi.KeyManagementServiceClient

	conn *grpc.ClientConn
	cmd  *exec.Cmd
	dir  string
}

func startEmpty(ctx context.Context) (*empty, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "bench-empty")
	if err != nil {
		return nil, err
	}
	e := &empty{dir: dir}
	socket := filepath.Join(dir, "empty.sock")
	if e.conn, err = grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true))); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	e.client = kmsapi.NewKeyManagementServiceClient(e.conn)
	e.cmd = command(ctx, self, emptyServer, socket)
	if err := e.cmd.Start(); err != nil {
		return nil, errors.Join(err, e.conn.Close(), os.RemoveAll(dir))
	}
	if _, err := e.client.Status(ctx, &kmsapi.StatusRequest{}); err != nil {
		e.close()
		return nil, err
	}
	return e, nil
}

func (e *empty) close() {
	_ = e.conn.Close()
	_ = e.cmd.Process.Kill()
	_ = e.cmd.Wait()
	_ = os.RemoveAll(e.dir)
}
