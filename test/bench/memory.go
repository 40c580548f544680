// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"sync"

	kmsapi "k8s.io/kms/apis/v2"
)

// memory measures the resident set after many requests.
func memory(ctx context.Context, o options) error {
	const requests, callers = 10_000, 16
	v, _, err := newFake(false)
	if err != nil {
		return err
	}
	defer v.close()
	p, err := launchReady(ctx, o.binary, v)
	if err != nil {
		return err
	}
	defer p.close()
	var all sync.WaitGroup
	failures := make(chan error, callers)
	for range callers {
		all.Go(func() {
			for range requests / callers / 2 {
				wrapped, err := p.client.Encrypt(ctx, &kmsapi.EncryptRequest{Plaintext: make([]byte, 32)})
				if err == nil {
					_, err = p.client.Decrypt(ctx, &kmsapi.DecryptRequest{Ciphertext: wrapped.GetCiphertext(), KeyId: wrapped.GetKeyId()})
				}
				if err != nil {
					failures <- err
					return
				}
			}
		})
	}
	all.Wait()
	select {
	case err := <-failures:
		return err
	default:
	}
	rss, err := p.memory()
	if err != nil {
		return err
	}
	report(fmt.Sprintf("resident memory after %d requests of %d callers", requests, callers), "%.1f MiB (peak %.1f MiB)", rss.Now, rss.Peak)
	return nil
}
