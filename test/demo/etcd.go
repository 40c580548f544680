// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	kmstypes "k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2/v2"

	"github.com/trousseau-io/trousseau/test/apiserver"
)

// put writes a Secret with our password and keeps the bytes for etcd.
func (d *demo) put(ctx context.Context, name string) ([]byte, *kmstypes.EncryptedObject, error) {
	stored, err := d.api.Write(ctx, apiserver.Secret(name, password))
	if err != nil {
		return nil, nil, fmt.Errorf("writing Secret %s: %w", name, err)
	}
	object, err := d.api.Open(stored)
	if err != nil {
		return nil, nil, err
	}
	d.secrets[name] = stored
	return stored, object, nil
}

// get makes an API server read a Secret that put has written. A password other
// than ours is an error.
func (d *demo) get(ctx context.Context, api *apiserver.Server, name string) (stale bool, err error) {
	secret, stale, err := api.Read(ctx, name, d.secrets[name])
	if err != nil {
		return false, fmt.Errorf("reading Secret %s: %w", name, err)
	}
	if string(secret.Data["password"]) != password {
		return false, fmt.Errorf("the password in Secret %s is not the one written", name)
	}
	return stale, nil
}
