// SPDX-License-Identifier: Apache-2.0

// Package keyid makes, parses and hashes the key_id that Trousseau reports to
// kube-apiserver.
//
// A key_id names one version of one transit key (the KEK):
//
//	<namespace/><mount>/<key>/v<version>@<creation time, unix seconds>
//
// It is derived only from what Vault reports, so every node reports the same
// one and a restart needs no state on disk. Because of the creation time, a key
// that was deleted and recreated under its old name never reuses a key_id, which
// KEP-3299 forbids ("key_id and rotation"). The creation time is absent if
// Vault's policy denies reading the key.
package keyid

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"regexp"
	"strconv"
)

// MaxSize is the longest key_id, in bytes, that kube-apiserver accepts
// (KeyIDMaxSize in apiserver/pkg/storage/value/encrypt/envelope/kmsv2).
const MaxSize = 1024

// ID is a parsed key_id.
type ID struct {
	// Engine is the transit engine's full path: the namespace, if any, and
	// the mount, joined by a slash.
	Engine string
	// Key is the transit key's name.
	Key string
	// Version is the transit key version, counted from 1.
	Version int
	// Created is when Vault made that version, in unix seconds; 0 if unknown.
	Created int64
}

// String returns the key_id.
func (id ID) String() string {
	s := id.Engine + "/" + id.Key + "/v" + strconv.Itoa(id.Version)
	if id.Created != 0 {
		s += "@" + strconv.FormatInt(id.Created, 10)
	}
	return s
}

// The first group is greedy: all but the last two elements are the engine.
var form = regexp.MustCompile(`^(?s:(.+))/([^/]+)/v([1-9][0-9]*)(?:@([1-9][0-9]*))?$`)

// Parse reads a key_id as [ID.String] writes it, and accepts nothing else: for
// every accepted s, the result's String is s. Its errors do not repeat s, which
// anyone who can write to etcd may have chosen.
func Parse(s string) (ID, error) {
	if len(s) > MaxSize {
		return ID{}, fmt.Errorf("key_id is %d bytes long; the limit is %d", len(s), MaxSize)
	}
	parts := form.FindStringSubmatch(s)
	if parts == nil {
		return ID{}, errors.New("key_id is not of the form <mount>/<key>/v<version>[@<unix seconds>]")
	}
	id := ID{Engine: parts[1], Key: parts[2]}
	version, err := strconv.ParseInt(parts[3], 10, 32)
	if err == nil && parts[4] != "" {
		id.Created, err = strconv.ParseInt(parts[4], 10, 64)
	}
	if err != nil {
		return ID{}, errors.New("key_id's version or creation time is out of range")
	}
	id.Version = int(version)
	return id, nil
}

// Hash returns "sha256:" and the hex digest of a key_id: the label of
// kube-apiserver's metrics (apiserver_envelope_encryption_key_id_hash_total and
// others).
func Hash(keyID string) string {
	return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(keyID)))
}
