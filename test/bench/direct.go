// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// direct calls transit without Trousseau, like a program that needs only the result:
// no retries, no metrics, no second node. It is the baseline.
type direct struct {
	web   *http.Client
	url   string // of the transit engine
	token string
}

func newDirect(v *upstream) (*direct, error) {
	transport, err := v.transport()
	if err != nil {
		return nil, err
	}
	return &direct{web: &http.Client{Transport: transport}, url: v.url + "/v1/transit/", token: v.token}, nil
}

// transport keeps one HTTP/1.1 connection per caller. HTTP/2 would put all callers
// on one connection and make the baseline slower.
func (v *upstream) transport() (*http.Transport, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool()}
	if v.ca != nil && !config.RootCAs.AppendCertsFromPEM(v.ca) {
		return nil, errors.New("the CA is not a certificate")
	}
	return &http.Transport{
		TLSClientConfig:     config,
		MaxIdleConns:        mostCallers,
		MaxIdleConnsPerHost: mostCallers,
		MaxConnsPerHost:     mostCallers,
		IdleConnTimeout:     90 * time.Second,
	}, nil
}

func (d *direct) encrypt(ctx context.Context, plaintext []byte) (ciphertext []byte, err error) {
	var answer struct {
		Data struct {
			Ciphertext string `json:"ciphertext"`
		} `json:"data"`
	}
	err = d.call(ctx, "encrypt/"+keyA, map[string]string{"plaintext": base64.StdEncoding.EncodeToString(plaintext)}, &answer)
	return []byte(answer.Data.Ciphertext), err
}

func (d *direct) decrypt(ctx context.Context, ciphertext []byte) (plaintext []byte, err error) {
	var answer struct {
		Data struct {
			Plaintext []byte `json:"plaintext"`
		} `json:"data"`
	}
	err = d.call(ctx, "decrypt/"+keyA, map[string]string{"ciphertext": string(ciphertext)}, &answer)
	return answer.Data.Plaintext, err
}

func (d *direct) call(ctx context.Context, path string, body map[string]string, answer any) error {
	encoded, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.url+path, bytes.NewReader(encoded))
	if err != nil {
		return err
	}
	req.Header.Set("X-Vault-Token", d.token)
	resp, err := d.web.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("calling %s directly: %s", path, resp.Status)
	}
	return json.Unmarshal(text, answer)
}

func (d *direct) close() { d.web.CloseIdleConnections() }
