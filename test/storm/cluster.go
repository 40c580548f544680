// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"

	kmsservice "k8s.io/kms/pkg/service"

	"github.com/trousseau-io/trousseau/internal/keyid"
	"github.com/trousseau-io/trousseau/internal/vault"
	"github.com/trousseau-io/trousseau/test/harness/direct"
)

// cluster is what Vault and etcd hold for a simulated cluster.
type cluster struct {
	key, token string
	seeds      [perCluster][]seed // of each plugin
}

// seed is a wrapped seed in etcd.
type seed struct {
	wrapped   kmsservice.DecryptRequest
	plaintext []byte
}

// batch is how many seeds are encrypted with one call.
const batch = 250

// setUp makes a key, a policy and a token for each cluster, and encrypts its seeds.
func setUp(ctx context.Context, v reach, clusters, seeds int, random uint64) ([]*cluster, error) {
	root, err := direct.New(v.url, v.ca, v.root, 1)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	clients, err := vault.Dial(vault.Config{
		Addresses: []string{v.url}, Mount: "transit", CACert: v.ca, Credential: vault.Given(v.root),
	})
	if err != nil {
		return nil, err
	}
	defer clients[0].Close()
	// The seeds of a cluster depend neither on the number of clusters nor on Vault.
	var key [32]byte
	for i := range key {
		key[i] = byte(random >> (i % 8 * 8))
	}
	bytes := rand.NewChaCha8(key)
	var all []*cluster
	for i := range clusters {
		c := &cluster{key: fmt.Sprintf("cluster-%02d", i)}
		if c.token, err = c.admit(ctx, root); err != nil {
			return nil, err
		}
		for p := range c.seeds {
			if c.seeds[p], err = c.encrypt(ctx, clients[0], seeds, bytes); err != nil {
				return nil, err
			}
		}
		all = append(all, c)
	}
	return all, nil
}

// policy is the policy in the documentation, for one key.
const policy = `
path "transit/encrypt/%[1]s" { capabilities = ["update"] }
path "transit/decrypt/%[1]s" { capabilities = ["update"] }
path "transit/keys/%[1]s"    { capabilities = ["read"] }
`

// admit makes the key, the policy and a token.
func (c *cluster) admit(ctx context.Context, root *direct.Client) (token string, err error) {
	var answer struct {
		Auth struct {
			ClientToken string `json:"client_token"`
		} `json:"auth"`
	}
	err = errors.Join(
		root.Call(ctx, http.MethodPost, "transit/keys/"+c.key, struct{}{}, nil),
		root.Call(ctx, http.MethodPut, "sys/policies/acl/"+c.key, map[string]string{"policy": fmt.Sprintf(policy, c.key)}, nil),
		root.Call(ctx, http.MethodPost, "auth/token/create", map[string]any{"policies": []string{c.key}, "period": "24h"}, &answer),
	)
	return answer.Auth.ClientToken, err
}

// encrypt makes n seeds.
func (c *cluster) encrypt(ctx context.Context, client *vault.Client, n int, random *rand.ChaCha8) (seeds []seed, err error) {
	key, err := client.ReadKey(ctx, c.key)
	if err != nil {
		return nil, err
	}
	id := keyid.ID{Engine: client.Engine(), Key: c.key, Version: 1, Created: key.Created[1].Unix()}.String()
	for len(seeds) < n {
		items := make([]vault.Item, min(batch, n-len(seeds)))
		for i := range items {
			items[i].Data = make([]byte, 32)
			_, _ = random.Read(items[i].Data) // never fails
		}
		outcomes, err := client.EncryptBatch(ctx, c.key, items)
		if err != nil {
			return nil, err
		}
		for i, o := range outcomes {
			if o.Err != nil {
				return nil, o.Err
			}
			seeds = append(seeds, seed{kmsservice.DecryptRequest{Ciphertext: o.Data, KeyID: id}, items[i].Data})
		}
	}
	return seeds, nil
}
