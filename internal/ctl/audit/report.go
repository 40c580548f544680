// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"time"

	"github.com/trousseau-io/trousseau/internal/ctl/etcd"
)

// Report is what an audit has found, as it is printed in JSON and YAML. Texts
// that come from etcd are quoted as in Go where they hold anything that is not
// printable.
type Report struct {
	Source    Source     `json:"source"`
	Objects   int        `json:"objects"`
	Resources []Resource `json:"resources"`
	// KeyIDs are what seeds of KMS v2 are wrapped under, of all resources.
	KeyIDs []KeyID `json:"keyIDs"`
	// TransitKeys are the keys that Trousseau's key_ids name.
	TransitKeys []TransitKey `json:"transitKeys"`
	// Drill is nil unless the seeds were unwrapped.
	Drill   *Drill   `json:"drill,omitempty"`
	Answers []Answer `json:"answers"`
	// Findings are what is not as it should be; none means that all is well.
	Findings []Finding `json:"findings"`
	// Notes are what the reader has to know to judge the rest.
	Notes []string `json:"notes"`
}

// Source is what was read.
type Source struct {
	Kind string `json:"kind"` // "etcd" or "snapshot"
	// Names are the endpoints, or the file.
	Names    []string  `json:"names"`
	Prefix   string    `json:"prefix"`
	Asked    []string  `json:"onlyResources,omitempty"`
	Revision int64     `json:"revision"`
	Read     time.Time `json:"read"`
	// Checksum is that of a snapshot: "ok" or "missing".
	Checksum    etcd.Checksum `json:"sha256,omitempty"`
	Resumptions []Resumption  `json:"resumptions,omitempty"`
}

// Resumption is that keys from Key on were read at another revision.
type Resumption struct {
	Revision int64  `json:"revision"`
	Key      string `json:"fromKey"`
}

// Resource is how one resource is stored.
type Resource struct {
	Name string `json:"name"`
	// Encrypted says that all of it is meant to be: it was asked for by name, it
	// is secrets, or some of it is encrypted.
	Encrypted bool    `json:"encrypted"`
	Objects   int     `json:"objects"`
	Clear     int     `json:"inTheClear"`
	Malformed int     `json:"malformed"`
	Groups    []Group `json:"groups"`
	// Older are the values in a snapshot that were overwritten or deleted but
	// not compacted away, and OlderClear those of them that are in the clear.
	Older      int `json:"older,omitempty"`
	OlderClear int `json:"olderInTheClear,omitempty"`
}

// Group is the objects of a resource that are stored in one form.
type Group struct {
	Form string `json:"form"`
	// Name is the provider of KMS, or the name of a local key.
	Name      string `json:"name,omitempty"`
	KeyID     string `json:"keyID,omitempty"`
	KeyIDHash string `json:"keyIDHash,omitempty"`
	// Version is transit's, if the key_id is one of Trousseau's.
	Version int    `json:"version,omitempty"`
	Problem string `json:"problem,omitempty"`
	Objects int    `json:"objects"`
	Seeds   int    `json:"seeds,omitempty"`
	// OldestRevision and NewestRevision are when the first and the last of them
	// were written.
	OldestRevision int64 `json:"oldestRevision"`
	NewestRevision int64 `json:"newestRevision"`
	// FirstKeys are a few of their keys; absent for what is as it should be.
	FirstKeys []string `json:"firstKeys,omitempty"`
}

// KeyID is one key_id of one provider.
type KeyID struct {
	Provider string `json:"provider"`
	KeyID    string `json:"keyID"`
	Hash     string `json:"keyIDHash"`
	// Engine, Key and Version are set if the key_id is one of Trousseau's, and
	// Created if it says when the version was made.
	Engine  string     `json:"engine,omitempty"`
	Key     string     `json:"key,omitempty"`
	Version int        `json:"version,omitempty"`
	Created *time.Time `json:"created,omitempty"`
	Objects int        `json:"objects"`
	Seeds   int        `json:"seeds"`
}

// TransitKey is a key of Vault's transit engine.
type TransitKey struct {
	Engine   string           `json:"engine"`
	Key      string           `json:"key"`
	Versions []TransitVersion `json:"versions"` // newest first
	// MayBecome is the highest min_decryption_version with which all that was
	// read stays readable; 0 if that is not known, for the reason in Unknown.
	MayBecome int    `json:"minDecryptionVersionMayBecome"`
	Unknown   string `json:"unknown,omitempty"`
}

// TransitVersion is a version that is needed.
type TransitVersion struct {
	Version int `json:"version"`
	Objects int `json:"objects"`
	Seeds   int `json:"seeds"`
}

// Answer is one of the three questions with its answer.
type Answer struct {
	Question string `json:"question"`
	// Verdict is "yes", "no" or "unknown" for the first, and a short answer to
	// the others.
	Verdict string   `json:"verdict"`
	Text    []string `json:"text"`
}

// Finding is something that is not as it should be.
type Finding struct {
	// Kind is FindingClear, FindingMalformed, FindingLost or FindingUnknown.
	Kind      string   `json:"kind"`
	Objects   int      `json:"objects"`
	Text      string   `json:"text"`
	FirstKeys []string `json:"firstKeys"`
}

// The kinds of findings.
const (
	FindingClear     = "in the clear"
	FindingMalformed = "malformed"
	FindingLost      = "lost"
	FindingUnknown   = "not verified"
)

// Drill is what unwrapping every seed has shown.
type Drill struct {
	Seeds    int `json:"seeds"`
	Readable int `json:"readable"`
	Lost     int `json:"lost"`
	Unknown  int `json:"unknown"`
	// LostObjects and UnknownObjects are how many objects depend on those.
	LostObjects    int `json:"lostObjects"`
	UnknownObjects int `json:"unknownObjects"`
	// Failures are the seeds that were not unwrapped, the first thousand.
	Failures []SeedFailure `json:"failures"`
}

// SeedFailure is a seed that was not unwrapped.
type SeedFailure struct {
	// Seed is a hash of the wrapped seed.
	Seed      string   `json:"seed"`
	Provider  string   `json:"provider"`
	KeyID     string   `json:"keyID"`
	KeyIDHash string   `json:"keyIDHash"`
	Verdict   string   `json:"verdict"` // "lost" or "unknown"
	Reason    string   `json:"reason"`
	Objects   int      `json:"objects"`
	FirstKeys []string `json:"firstKeys"`
}
