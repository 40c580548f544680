// SPDX-License-Identifier: Apache-2.0

package apiserver_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/trousseau-io/trousseau/test/apiserver"
)

// writeWindow is how long kube-apiserver keeps writing after the last good Status (kmsv2PluginWriteDEKSourceMaxTTL
// in package encryptionconfig).
const writeWindow = 3 * time.Minute

func TestOutageWithinGrace(t *testing.T) {
	t.Parallel()
	vault, _ := startVault(t)
	p := startHealthy(t, vault, "--probe-interval=200ms", "--outage-grace=1h")
	s := load(t, p)
	stored, object := write(t, s, "a")
	vault.Stop()
	await(t, 10*time.Second, "/readyz to report the outage", func(ctx context.Context) bool {
		ready, _, err := p.Ready(ctx)
		return err == nil && !ready
	})
	if got := keyID(t, dial(t, p)); got != object.KeyID {
		t.Errorf("Status: got key_id %q, want still %q", got, object.KeyID)
	}
	if err := s.Check(t.Context()); err != nil {
		t.Errorf("kube-apiserver: got %v, want the plugin healthy", err)
	}
	read(t, s, "a", stored, false)
	write(t, s, "b")
}

func TestOutageBeyondGrace(t *testing.T) {
	t.Parallel()
	clock := setClock(t)
	vault, _ := startVault(t)
	p := startHealthy(t, vault, "--probe-interval=200ms", "--outage-grace=1s")
	s := load(t, p)
	stored, object := write(t, s, "a")

	vault.Stop()
	err := check(t, s, false)
	if want := "longer ago than the grace of 1s"; !strings.Contains(err.Error(), want) {
		t.Errorf("kube-apiserver's health check: got %q, want …%s…", err, want)
	}
	writesEnd(t, s, clock)
	read(t, s, "a", stored, false)

	if err := vault.Start(); err != nil {
		t.Fatal(err)
	}
	check(t, s, true)
	_, again := write(t, s, "b")
	if again.KeyID != object.KeyID {
		t.Errorf("after the outage: got key_id %q, want %q", again.KeyID, object.KeyID)
	}
}

// TestKeyLost checks that there is no grace for a lost key, because new data could not be read back. Only the API
// server's own window still applies.
func TestKeyLost(t *testing.T) {
	t.Parallel()
	clock := setClock(t)
	vault, key := startVault(t)
	p := startHealthy(t, vault, "--probe-interval=200ms", "--outage-grace=1h")
	s := load(t, p)
	stored, _ := write(t, s, "a")
	kms := dial(t, p)

	key.Delete()
	await(t, 5*time.Second, "Status to fail", func(ctx context.Context) bool {
		_, err := kms.Status(ctx)
		return status.Code(err) == codes.Unavailable
	})
	if _, err := kms.Encrypt(t.Context(), "1", make([]byte, 32)); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("Encrypt: got %v, want FailedPrecondition", err)
	}
	err := check(t, s, false)
	if want := "no longer decrypts what it encrypted"; !strings.Contains(err.Error(), want) {
		t.Errorf("kube-apiserver's health check: got %q, want …%s…", err, want)
	}
	writesEnd(t, s, clock)
	read(t, s, "a", stored, false)
}

// writesEnd checks that an API server with an unhealthy plugin keeps writing until the window closes, and then
// stops.
func writesEnd(t *testing.T, s *apiserver.Server, clock *clock) {
	t.Helper()
	// The window began at the last good Status, up to CheckedGood ago.
	clock.advance(writeWindow - apiserver.CheckedGood - 10*time.Second)
	write(t, s, "late")
	clock.advance(apiserver.CheckedGood + 11*time.Second)
	_, err := s.Write(t.Context(), apiserver.Secret("late", password))
	if err == nil || !strings.Contains(err.Error(), "expired at") {
		t.Errorf("writing after the window closed: got %v, want an error that says expired", err)
	}
}

// TestNeverProven checks that without a usable config.yaml nothing can be read or written, and that
// /readyz/kms-providers names the reason.
func TestNeverProven(t *testing.T) {
	t.Parallel()
	vault, _ := startVault(t)
	healthy := startHealthy(t, vault)
	stored, _ := write(t, load(t, healthy), "a")

	p := startPlugin(t, vault)
	kms := dial(t, p)
	// Trousseau may not have read the file yet, and kube-apiserver caches the first answer for a while.
	await(t, 10*time.Second, "Status to name the file", func(ctx context.Context) bool {
		_, err := kms.Status(ctx)
		return err != nil && strings.Contains(err.Error(), p.ConfigFile())
	})
	s := load(t, p)
	err := check(t, s, false)
	if want := p.ConfigFile() + ": no such file"; !strings.Contains(err.Error(), want) {
		t.Errorf("kube-apiserver's health check: got %q, want …%s…", err, want)
	}
	if _, err := s.Write(t.Context(), apiserver.Secret("b", password)); err == nil {
		t.Error("writing: got no error")
	}
	if _, _, err := s.Read(t.Context(), "a", stored); err == nil {
		t.Error("reading: got no error")
	}

	configure(t, p, vault)
	check(t, s, true)
	read(t, s, "a", stored, false)
	write(t, s, "b")
}
