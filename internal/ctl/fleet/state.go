// SPDX-License-Identifier: Apache-2.0

package fleet

import "time"

// State is what one node reports. A zero time means that the node does not know it.
type State struct {
	// Healthy is the result of /readyz: the key works for encryption and
	// decryption now, and the socket belongs to this process.
	Healthy bool `json:"healthy"`
	// Reasons say why the node is not healthy, each as "check: reason".
	Reasons []string `json:"reasons,omitempty"`
	// Generation is 0 until a configuration is adopted.
	Generation int       `json:"generation"`
	Key        Key       `json:"key,omitzero"`
	Reload     Reload    `json:"reload"`
	Token      Token     `json:"token,omitzero"`
	Proven     time.Time `json:"lastProof,omitzero"`
	Build      Build     `json:"build"`
}

// Key is the key version that encrypts. It is zero in generation 0.
type Key struct {
	// Hash is sha256: and the digest of key_id, as in kube-apiserver's metrics.
	Hash    string `json:"keyIDHash"`
	Name    string `json:"name"`
	Version int    `json:"version"`
	// Created is when Vault created the version; zero if the policy does not
	// allow Trousseau to read it.
	Created time.Time `json:"created,omitzero"`
}

// Reload is the result of the last reload of the configuration.
type Reload struct {
	// InUse says whether the configuration in the file is the one in use.
	InUse bool `json:"inUse"`
	// Adopted is when a configuration was last adopted.
	Adopted time.Time `json:"lastAdopted,omitzero"`
	// Class is the class of the error if the configuration in the file is not in
	// use.
	Class string `json:"errorClass,omitempty"`
}

// Token is the Vault token in use.
type Token struct {
	// AccessorHash is the hex SHA-256 of its accessor.
	AccessorHash string `json:"accessorHash,omitempty"`
	// Expires is zero if the token never expires, or may not look itself up.
	Expires time.Time `json:"expires,omitzero"`
	// KeptBy says what renews the token; empty without Expires.
	KeptBy Keeper `json:"keptAliveBy,omitempty"`
}

// Keeper is the program that renews a token. Its values are part of the output.
type Keeper string

const (
	// Trousseau renews the token, or logs in again.
	Trousseau Keeper = "trousseau"
	// NoKeeper means that an operator must issue a new token before it expires.
	NoKeeper Keeper = "nobody"
)

// String says whether the token is renewed.
func (k Keeper) String() string {
	if k == Trousseau {
		return "renewed by trousseau"
	}
	return "not renewed"
}

// Build identifies the program that runs.
type Build struct {
	Version  string `json:"version"`
	Revision string `json:"revision"`
	Go       string `json:"go"`
}
