// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

const (
	// callTimeout is trousseau's --request-timeout, by default.
	callTimeout = 2500 * time.Millisecond
	// The network tells trousseau from direct calls by the address that they come from.
	trousseauHost = "127.0.0.1"
	directHost    = "127.0.0.2"
)

// access is how trousseau's files say to use Vault.
type access struct {
	addresses [2]string // the second may be ""
	token     string
	ca        string
	cert, key string // of the client
}

// roundTrip encrypts and decrypts without trousseau, at the first address where that
// succeeds. Every call has a new connection.
func (a access) roundTrip(ctx context.Context) (err error) {
	pair, err := tls.X509KeyPair([]byte(a.cert), []byte(a.key))
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(a.ca))
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(directHost)}}
	client := &http.Client{Timeout: callTimeout, Transport: &http.Transport{
		DialContext:       dialer.DialContext,
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, Certificates: []tls.Certificate{pair}},
	}}
	for _, address := range a.addresses {
		if address == "" {
			continue
		}
		e := a.roundTripAt(ctx, client, address)
		if e == nil {
			return nil
		}
		err = errors.Join(err, fmt.Errorf("%s: %w", address, e))
	}
	return err
}

func (a access) roundTripAt(ctx context.Context, client *http.Client, address string) error {
	// Both fields are base64 in Vault's API, as encoding/json does for []byte.
	type message struct {
		Plaintext  []byte `json:"plaintext,omitempty"`
		Ciphertext string `json:"ciphertext,omitempty"`
	}
	call := func(operation string, in message) (out message, err error) {
		body, err := json.Marshal(in)
		if err != nil {
			return out, err
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPut, address+"/v1/transit/"+operation+"/"+keyName, bytes.NewReader(body))
		if err != nil {
			return out, err
		}
		req.Header.Set("X-Vault-Token", a.token)
		resp, err := client.Do(req)
		if err != nil {
			return out, err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return out, fmt.Errorf("%s: %s", operation, resp.Status)
		}
		var answer struct{ Data message }
		err = json.NewDecoder(resp.Body).Decode(&answer)
		return answer.Data, err
	}
	plaintext := []byte(rand.Text())
	sealed, err := call("encrypt", message{Plaintext: plaintext})
	if err != nil {
		return err
	}
	opened, err := call("decrypt", message{Ciphertext: sealed.Ciphertext})
	if err == nil && !bytes.Equal(opened.Plaintext, plaintext) {
		err = errors.New("decrypt: another plaintext came back")
	}
	return err
}
