// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"

	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

// newFake starts a fake Vault in this process, for measurements that inspect or
// break it. The caller must close it.
func newFake(tls bool) (*upstream, *vaulttest.Server, error) {
	fake, err := vaulttest.New(vaulttest.Options{TLS: tls})
	if err != nil {
		return nil, nil, err
	}
	fake.CreateKey(keyA)
	fake.CreateKey(keyB)
	v := &upstream{url: fake.URL(), token: fake.KMSToken(keyA, keyB), pid: os.Getpid(), close: fake.Close}
	if tls {
		v.ca = fake.CAPEM()
	}
	return v, fake, nil
}

// fakeServer is a fake Vault as a separate process, like a real Vault: in this
// process a direct call would be too cheap. It prints its address and credentials on
// standard output, and ends when standard input is closed.
const fakeServer = "serve-vault"

type reach struct {
	URL   string
	CA    []byte
	Token string
}

func serveFake([]string) error {
	v, fake, err := newFake(true)
	if err != nil {
		return err
	}
	defer fake.Close()
	if err := json.NewEncoder(os.Stdout).Encode(reach{v.url, v.ca, v.token}); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// startFake starts a fakeServer. The caller must close it.
func startFake(ctx context.Context) (*upstream, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := command(ctx, self, fakeServer)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	end := func() {
		_ = in.Close()
		_ = cmd.Wait()
	}
	var r reach
	if err := json.NewDecoder(out).Decode(&r); err != nil {
		end()
		return nil, errors.Join(errors.New("starting a fake vault"), err)
	}
	return &upstream{what: "a fake Vault", url: r.URL, ca: r.CA, token: r.Token, pid: cmd.Process.Pid, close: end}, nil
}
