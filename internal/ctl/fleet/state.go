// SPDX-License-Identifier: Apache-2.0

package fleet

import "time"

// State is what one node says of itself. A time that is zero is one that the
// node does not know.
type State struct {
	// Healthy is what /readyz says: the key can be used in full right now, and
	// the socket is this process's.
	Healthy bool `json:"healthy"`
	// Reasons are why it is not healthy, each as "check: reason".
	Reasons []string `json:"reasons,omitempty"`
	// Generation is 0 as long as no configuration has been adopted.
	Generation int       `json:"generation"`
	Key        Key       `json:"key,omitzero"`
	Reload     Reload    `json:"reload"`
	Token      Token     `json:"token,omitzero"`
	Proven     time.Time `json:"lastProof,omitzero"`
	Build      Build     `json:"build"`
}

// Key is the key version that encrypts. It is zero in generation 0.
type Key struct {
	// Hash is sha256: and the digest of key_id, as kube-apiserver's metrics have it.
	Hash    string `json:"keyIDHash"`
	Name    string `json:"name"`
	Version int    `json:"version"`
	// Created is when Vault made the version; zero if policy denies reading it.
	Created time.Time `json:"created,omitzero"`
}

// Reload is how the configuration was last looked at.
type Reload struct {
	// InUse says whether the configuration as it is now is the one in use.
	InUse bool `json:"inUse"`
	// Adopted is when one was last adopted.
	Adopted time.Time `json:"lastAdopted,omitzero"`
	// Class is that of the failure that keeps the configuration from being used.
	Class string `json:"errorClass,omitempty"`
}

// Token is the Vault token in use.
type Token struct {
	// AccessorHash is the hex SHA-256 of its accessor.
	AccessorHash string `json:"accessorHash,omitempty"`
	// Expires is zero if it never dies or may not be looked up.
	Expires time.Time `json:"expires,omitzero"`
	// KeptBy is who prevents that; empty without Expires.
	KeptBy Keeper `json:"keptAliveBy,omitempty"`
}

// Keeper is who keeps a token alive.
type Keeper string

const (
	// Trousseau renews the token, or logs in anew.
	Trousseau Keeper = "trousseau"
	// Nobody keeps it: somebody has to write a new one.
	Nobody Keeper = "nobody"
)

// Build is which program runs.
type Build struct {
	Version  string `json:"version"`
	Revision string `json:"revision"`
	Go       string `json:"go"`
}
