// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"reflect"
	"testing"

	kmsapi "k8s.io/kms/apis/v2"
)

func TestParsePeers(t *testing.T) {
	for text, want := range map[string][]peer{
		"":                  nil,
		"other=/run/o.sock": {{name: "other", path: "/run/o.sock", args: []string{}}},
		"before=bin/old, two=bin/trousseau --max-vault-requests=2 --sandbox=false": {
			{"before", "bin/old", []string{}},
			{"two", "bin/trousseau", []string{"--max-vault-requests=2", "--sandbox=false"}},
		},
	} {
		got, err := parsePeers(text)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("parsePeers(%q) = %q, %v, want %q", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"/run/o.sock":  `peer "/run/o.sock": want NAME=/path/to.sock, or NAME=/path/to/trousseau --flag`,
		"a=":           `peer "a=": want NAME=/path/to.sock, or NAME=/path/to/trousseau --flag`,
		"a=/x,a=/y":    `peer "a": the name is taken`,
		"trousseau=/x": `peer "trousseau": the name is taken`,
	} {
		if _, err := parsePeers(text); err == nil || err.Error() != want {
			t.Errorf("parsePeers(%q): got %v, want %s", text, err, want)
		}
	}
}

func TestCallersHaveTheirOwnSeeds(t *testing.T) {
	c := &contender{wrapped: make([]*kmsapi.EncryptResponse, seeds)}
	users := make(map[string]int)
	for i := range c.wrapped {
		c.wrapped[i] = &kmsapi.EncryptResponse{Ciphertext: seed(i)}
	}
	caller := 0
	c.decrypt = func(_ context.Context, wrapped *kmsapi.EncryptResponse) ([]byte, error) {
		if user, used := users[string(wrapped.GetCiphertext())]; used && user != caller {
			t.Fatalf("callers %d and %d decrypt the same seed", user, caller)
		}
		users[string(wrapped.GetCiphertext())] = caller
		return wrapped.GetCiphertext(), nil
	}
	decrypt := c.call("Decrypt")
	for caller = range mostCallers {
		for n := range 100 {
			if err := decrypt(t.Context(), caller, n); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestWrongSeedFails(t *testing.T) {
	c := &contender{
		wrapped: []*kmsapi.EncryptResponse{{}},
		decrypt: func(context.Context, *kmsapi.EncryptResponse) ([]byte, error) { return seed(1), nil },
	}
	s := each(t.Context(), 1, 1, c.decryptSeed)
	if s.failed != 1 || !errors.Is(s.failure, errWrong) {
		t.Errorf("got %d failed (%v), want 1 failed (%v)", s.failed, s.failure, errWrong)
	}
}
