// SPDX-License-Identifier: Apache-2.0

package kms_test

import (
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	kmsapi "k8s.io/kms/apis/v2"

	"github.com/trousseau-io/trousseau/internal/daemon/kms"
)

// BenchmarkStatus and BenchmarkEncrypt measure the cost of the server and its socket
// with a KEK that costs nothing. All callers share one connection, as in
// kube-apiserver.
func BenchmarkStatus(b *testing.B) {
	benchmark(b, func(client kmsapi.KeyManagementServiceClient) error {
		_, err := client.Status(b.Context(), &kmsapi.StatusRequest{})
		return err
	})
}

func BenchmarkEncrypt(b *testing.B) {
	request := &kmsapi.EncryptRequest{Uid: "2b0a1b6e-8d0c-4d0b-9c55-93b8f0f2c6ef", Plaintext: make([]byte, 48)}
	benchmark(b, func(client kmsapi.KeyManagementServiceClient) error {
		_, err := client.Encrypt(b.Context(), request)
		return err
	})
}

func benchmark(b *testing.B, call func(kmsapi.KeyManagementServiceClient) error) {
	for _, callers := range []int{1, 16, 128} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "kms.sock")
			l, err := net.Listen("unix", path)
			if err != nil {
				b.Fatal(err)
			}
			server := kms.New(kms.Options{KEK: working(), RequestTimeout: time.Second})
			go func() { _ = server.Serve(l) }()
			defer server.Shutdown(b.Context())
			client, closeConn, err := dialLikeKube(path)
			if err != nil {
				b.Fatal(err)
			}
			defer closeConn()
			if err := call(client); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			b.ResetTimer()
			var wg sync.WaitGroup
			var calls atomic.Int64
			for range callers {
				wg.Go(func() {
					for calls.Add(1) <= int64(b.N) {
						if err := call(client); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
		})
	}
}
