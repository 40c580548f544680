// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"slices"
	"time"

	"github.com/trousseau-io/trousseau/internal/ctl/etcd"
	"github.com/trousseau-io/trousseau/internal/ctl/finding"
)

// Report is the result of an audit, as printed in JSON and YAML. Texts from etcd are
// quoted as in Go if they hold anything that does not print.
type Report struct {
	Source    Source     `json:"source"`
	Objects   int        `json:"objects"`
	Resources []Resource `json:"resources"`
	// Outside are the encrypted objects under none of the prefixes. Their names are the
	// first parts of their keys.
	Outside []Resource `json:"outside"`
	// KeyIDs are the key_ids of the KMS v2 seeds of all resources and of Outside.
	KeyIDs []KeyID `json:"keyIDs"`
	// TransitKeys are the keys that Trousseau's key_ids name.
	TransitKeys []TransitKey `json:"transitKeys"`
	// Unattributed are the versions of transit keys that are needed by values which do
	// not record the key: those of KMS v1, and of other plugins.
	Unattributed []TransitVersion `json:"unattributedVersions"`
	// Drill is nil if no seed was unwrapped.
	Drill *Drill `json:"drill,omitempty"`
	// Unreadable are the objects that kube-apiserver cannot read; at most 1,000, and
	// only after a drill.
	Unreadable []Unreadable      `json:"unreadable,omitempty"`
	Answers    []Answer          `json:"answers"`
	Findings   []finding.Finding `json:"-"` // they are elsewhere in the document
	// Notes are what you need to know to judge the rest.
	Notes []string `json:"notes"`
}

// everything returns the resources, and what is outside of the prefixes.
func (r *Report) everything() []Resource { return slices.Concat(r.Resources, r.Outside) }

// Source says what was read.
type Source struct {
	Kind string `json:"kind"` // "etcd" or "snapshot"
	// Names are the endpoints, or the file.
	Names    []string  `json:"names"`
	Prefixes []string  `json:"prefixes"`
	Asked    []string  `json:"onlyResources,omitempty"`
	Revision int64     `json:"revision"`
	Read     time.Time `json:"read"`
	// Checksum says whether a snapshot is undamaged: "ok" or "missing".
	Checksum    etcd.Checksum `json:"sha256,omitempty"`
	Resumptions []Resumption  `json:"resumptions,omitempty"`
	// OutsideUnread says that the etcd user may not read all keys outside of the
	// prefixes, so that what is there is unknown.
	OutsideUnread bool `json:"outsideUnread,omitempty"`
}

// Resumption says that keys from Key on were read at a newer revision.
type Resumption struct {
	Revision int64  `json:"revision"`
	Key      string `json:"fromKey"`
}

// Resource is how one resource is stored.
type Resource struct {
	Name string `json:"name"`
	// Encrypted says that all objects should be encrypted: the resource was named,
	// it is secrets, or some of its objects are encrypted.
	Encrypted bool    `json:"encrypted"`
	Objects   int     `json:"objects"`
	Clear     int     `json:"inTheClear"`
	Malformed int     `json:"malformed"`
	Groups    []Group `json:"groups"`
	// Progress is nil unless the objects are stored in more than one way, and should be
	// encrypted.
	Progress *Progress `json:"progress,omitempty"`
	// Older counts the values in a snapshot that were overwritten or deleted but
	// not yet compacted. OlderClear counts those of them that are in the clear.
	Older      int `json:"older,omitempty"`
	OlderClear int `json:"olderInTheClear,omitempty"`
}

// Group is the objects of a resource that are stored in one form.
type Group struct {
	Form string `json:"form"`
	// Name is the name of the KMS provider or of a local key.
	Name      string `json:"name,omitempty"`
	KeyID     string `json:"keyID,omitempty"`
	KeyIDHash string `json:"keyIDHash,omitempty"`
	// Version is the transit key's version, if the key_id is one of Trousseau.
	Version int `json:"version,omitempty"`
	// WrappedBy is the version that the wrapped key names in vault:vN:, whichever
	// plugin wrote it.
	WrappedBy int    `json:"wrappedByVersion,omitempty"`
	Problem   string `json:"problem,omitempty"`
	Objects   int    `json:"objects"`
	Seeds     int    `json:"seeds,omitempty"`
	// OldestRevision and NewestRevision are the etcd revisions at which the first
	// and the last of them were written.
	OldestRevision int64 `json:"oldestRevision"`
	NewestRevision int64 `json:"newestRevision"`
	// FirstKeys are examples of their keys; only if there is a problem.
	FirstKeys []string `json:"firstKeys,omitempty"`
}

// KeyID is one key_id of one provider.
type KeyID struct {
	Provider string `json:"provider"`
	KeyID    string `json:"keyID"`
	Hash     string `json:"keyIDHash"`
	// Engine, Key and Version are set if the key_id is one of Trousseau. Created is
	// set if the key_id has the creation time of the version.
	Engine  string     `json:"engine,omitempty"`
	Key     string     `json:"key,omitempty"`
	Version int        `json:"version,omitempty"`
	Created *time.Time `json:"created,omitempty"`
	// WrappedBy is as in Group.
	WrappedBy int `json:"wrappedByVersion,omitempty"`
	Objects   int `json:"objects"`
	Seeds     int `json:"seeds"`
}

// TransitKey is a key of Vault's transit engine that a key_id names.
type TransitKey struct {
	Engine   string           `json:"engine"`
	Key      string           `json:"key"`
	Versions []TransitVersion `json:"versions"` // newest first
	// MayBecome is a min_decryption_version with which every audited object stays
	// readable, as high as is certain; 0 if it is unknown, for the reason in Unknown.
	MayBecome int    `json:"minDecryptionVersionMayBecome"`
	Unknown   string `json:"unknown,omitempty"`
}

// TransitVersion is a key version that objects need.
type TransitVersion struct {
	Version int `json:"version"`
	Objects int `json:"objects"`
	Seeds   int `json:"seeds"`
}

// Answer is the answer to one of the three questions.
type Answer struct {
	Question string `json:"question"`
	// Verdict is the short answer: "yes" or "no" to the first question.
	Verdict string   `json:"verdict"`
	Text    []string `json:"text"`
}

// Unreadable is an object that kube-apiserver cannot read.
type Unreadable struct {
	Key string `json:"key"`
	// Remove is a command that makes kube-apiserver delete the object unread; "" if it
	// has no such call.
	Remove string `json:"remove,omitempty"`
}

// Drill is the result of unwrapping every seed.
type Drill struct {
	Seeds    int `json:"seeds"`
	Readable int `json:"readable"`
	Lost     int `json:"lost"`
	Unknown  int `json:"unknown"`
	// LostObjects and UnknownObjects count the objects that depend on those.
	LostObjects    int `json:"lostObjects"`
	UnknownObjects int `json:"unknownObjects"`
	// Failures are the seeds that were not unwrapped, at most 1,000.
	Failures []SeedFailure `json:"failures"`
}

// SeedFailure is a seed that was not unwrapped.
type SeedFailure struct {
	// Seed is a hash of the wrapped seed.
	Seed      string   `json:"seed"`
	Provider  string   `json:"provider"`
	KeyID     string   `json:"keyID,omitempty"` // KMS v1 has none
	KeyIDHash string   `json:"keyIDHash,omitempty"`
	Verdict   string   `json:"verdict"` // "lost" or "unknown"
	Reason    string   `json:"reason"`
	Objects   int      `json:"objects"`
	FirstKeys []string `json:"firstKeys"`
}
