// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/trousseau-io/trousseau/internal/keyid"
	"github.com/trousseau-io/trousseau/test/apiserver"
	"github.com/trousseau-io/trousseau/test/harness/plugin"
)

// Settings that are shortened to keep the demo short.
const (
	probeInterval = time.Second
	outageGrace   = 3 * time.Second
)

func (d *demo) start(ctx context.Context) error {
	began := time.Now()
	p, err := plugin.Start(ctx, plugin.Options{Binary: d.binary, Dir: d.dir, Args: []string{
		fmt.Sprint("--probe-interval=", probeInterval), fmt.Sprint("--outage-grace=", outageGrace), "--log-level=debug",
	}})
	if err != nil {
		return err
	}
	d.plugin = p
	d.fact("socket", "answers after %s, pid %d", rounded(time.Since(began)), p.PID())
	d.fact("shortened", "--probe-interval=%s (default 30s), --outage-grace=%s (default 5m)", probeInterval, outageGrace)
	if d.kms, err = apiserver.Dial(d.ctx, p.Socket(), "story"); err != nil {
		return err
	}
	_, err = d.status(ctx)
	d.fact("Status", "%s", d.said(err))
	d.found(status.Code(err) == codes.Unavailable, "Status without config.yaml", "%s", status.Code(err))
	return nil
}

func (d *demo) configure(ctx context.Context) error {
	began := time.Now()
	if err := d.render(d.vault.KMSToken(keyName)); err != nil {
		return err
	}
	if err := plugin.Await(ctx, 5*time.Second, "Status to be ok", func(ctx context.Context) (ok bool, _ error) {
		keyID, err := d.status(ctx)
		d.keyID = keyID
		return err == nil, nil
	}); err != nil {
		return err
	}
	took := time.Since(began)
	shown := strings.ReplaceAll(d.config().String(), d.token, "hvs.… (hidden)")
	d.fact("config.yaml", "%s", strings.ReplaceAll(strings.TrimPrefix(shown, "\n"), " \n", "·\n"))
	d.fact("Status", "ok, %s after the file arrived", rounded(took))
	d.fact("key_id", "%s\n%s (its hash in kube-apiserver's metrics)", d.keyID, keyid.Hash(d.keyID))
	d.found(took < apiserver.Timeout, "Status ok after config.yaml arrived", "%s", rounded(took))

	var err error
	if d.api, err = apiserver.Load(d.ctx, apiserver.Options{Socket: d.plugin.Socket(), Provider: provider, Dir: d.dir}); err != nil {
		return err
	}
	if err := d.api.Check(ctx); err != nil {
		return fmt.Errorf("kube-apiserver finds the plugin unhealthy: %w", err)
	}
	d.fact("kube-apiserver", "EncryptionConfiguration loaded, /readyz/kms-providers ok")
	return nil
}

// status asks the plugin itself, with kube-apiserver's client.
func (d *demo) status(ctx context.Context) (keyID string, err error) {
	resp, err := d.kms.Status(ctx)
	if err != nil {
		return "", err
	}
	if resp.Healthz != "ok" || resp.Version != "v2" {
		return "", fmt.Errorf("Status says healthz %q, version %q", resp.Healthz, resp.Version)
	}
	return resp.KeyID, nil
}

const password = "correct horse battery staple"

func (d *demo) writeSecret(ctx context.Context) error {
	secret := apiserver.Secret("database", password)
	stored, object, err := d.put(ctx, secret.Name)
	if err != nil {
		return err
	}
	d.fact("Secret", "default/%s, password: %q", secret.Name, password)
	const shown = 64
	d.fact("bytes for etcd", "%s…  (%d bytes in all)", hex.Dump(stored[:shown]), len(stored))
	d.fact("decoded", "prefix %s, then an EncryptedObject:\nencryptedData %d bytes, encryptedDEKSource %q…\nkeyID %s, type %s",
		d.api.Prefix(), len(object.EncryptedData), object.EncryptedDEKSource[:16], object.KeyID, object.EncryptedDEKSourceType)
	d.found(!bytes.Contains(stored, []byte(password)), "plaintext password in the bytes for etcd", "%d times", bytes.Count(stored, []byte(password)))
	d.found(object.KeyID == d.keyID, "key_id in these bytes", "%s; in Status: %s", object.KeyID, d.keyID)

	stale, err := d.get(ctx, d.api, secret.Name)
	if err != nil {
		return err
	}
	d.fact("read back", "the same password; stale: %t", stale)
	d.found(!stale, "Secret read back", "the same password; stale: %t", stale)
	return nil
}

// rounded is a duration for people.
func rounded(took time.Duration) string {
	if took < time.Second {
		return took.Round(time.Millisecond).String()
	}
	return took.Round(10 * time.Millisecond).String()
}

// said is what a gRPC error says, for the screen.
func (d *demo) said(err error) string {
	if err == nil {
		return "ok"
	}
	s, ok := status.FromError(err)
	if !ok {
		return d.words(err.Error())
	}
	return d.words(fmt.Sprintf("%s: %s", s.Code(), s.Message()))
}

// words wraps a message and removes the path of the demo's directory.
func (d *demo) words(message string) string {
	return wrap(strings.ReplaceAll(message, d.dir+"/", ""))
}

// wrap breaks a long line between words.
func wrap(text string) string {
	const width = 84
	var b strings.Builder
	column := 0
	for i, word := range strings.Fields(text) {
		switch {
		case i == 0:
		case column+1+len(word) > width:
			b.WriteByte('\n')
			column = 0
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += len(word)
	}
	return b.String()
}
