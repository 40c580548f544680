// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/trousseau-io/trousseau/test/apiserver"
	"github.com/trousseau-io/trousseau/test/harness/plugin"
)

// rotateKey rotates the transit key in Vault. trousseau must notice by itself.
func (d *demo) rotateKey(ctx context.Context) error {
	before, failed, old := d.load.kms.Mark(), d.load.failures(), d.keyID
	version := d.key.Rotate()
	rotated := time.Now()
	if err := plugin.Await(ctx, 5*time.Second, "Status to announce a new key_id", func(ctx context.Context) (ok bool, err error) {
		d.keyID, err = d.status(ctx)
		return d.keyID != old, err
	}); err != nil {
		return err
	}
	noticed := time.Since(rotated)
	d.fact("Status", "new key_id %s after Vault created version %d (trousseau probes every %s)", rounded(noticed), version, probeInterval)
	d.fact("key_id before", "%s", old)
	d.fact("key_id now", "%s", d.keyID)
	d.found(strings.Contains(d.keyID, fmt.Sprintf("/v%d@", version)), "key_id follows the key rotation", "version %d, after %s", version, rounded(noticed))

	d.fact("kube-apiserver", "asks for Status again %s after a good answer; waiting for that …", apiserver.CheckedGood)
	var written string
	if err := plugin.Await(ctx, apiserver.CheckedGood+5*time.Second, "kube-apiserver to write under the new key_id", func(ctx context.Context) (bool, error) {
		if err := d.api.Check(ctx); err != nil {
			return false, err
		}
		_, object, err := d.put(ctx, "cache")
		if err == nil {
			written = object.KeyID
		}
		return written == d.keyID, err
	}); err != nil {
		return err
	}
	d.fact("kube-apiserver", "writes under the new key_id %s after the rotation", rounded(time.Since(rotated)))
	d.found(written == d.keyID, "kube-apiserver writes under the new key_id", "after %s", rounded(time.Since(rotated)))
	stale, err := d.get(ctx, d.api, "database")
	if err != nil {
		return err
	}
	d.fact("the old Secret", "can still be read; stale: %t, so its next update re-encrypts it", stale)
	d.found(stale, "Secret under the old key_id can be read", "yes; stale: %t", stale)

	after := d.load.kms.Count()
	d.fact("meanwhile", "%d calls, %d failed, slowest %s", after.Operations-before.Operations, d.load.failures()-failed, rounded(after.Longest))
	return nil
}

// startAnother starts an API server with an empty cache, so that each Secret
// needs the plugin.
func (d *demo) startAnother(ctx context.Context) error {
	asked := func() (float64, error) {
		return d.plugin.Metric(ctx, "trousseau_kms_requests_total", "method", "Decrypt", "code", "OK")
	}
	before, err := asked()
	if err != nil {
		return err
	}
	another, err := apiserver.Load(d.ctx, apiserver.Options{Socket: d.plugin.Socket(), Provider: provider, Dir: d.dir})
	if err != nil {
		return err
	}
	read := 0
	for _, name := range []string{"database", "cache"} {
		stale, err := d.get(ctx, another, name)
		if err != nil {
			return err
		}
		read++
		object, err := another.Open(d.secrets[name])
		if err != nil {
			return err
		}
		d.fact("Secret "+name, "read; written under %s, stale: %t", object.KeyID, stale)
	}
	after, err := asked()
	if err != nil {
		return err
	}
	d.fact("trousseau", "answered %.0f Decrypts", after-before)
	d.found(after-before == float64(read), "Secrets read with an empty cache", "%d of %d, with %.0f Decrypts", read, len(d.secrets), after-before)
	return nil
}
