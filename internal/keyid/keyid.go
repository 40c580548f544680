// SPDX-License-Identifier: Apache-2.0

// Package keyid is the key_id that Trousseau reports to kube-apiserver: how it
// is made, read back and hashed.
//
// A key_id names one version of one transit key (the KEK):
//
//	<namespace/><mount>/<key>/v<version>@<creation time, unix seconds>
//
// It is derived only from what Vault reports, so every node reports the same
// one and a restart needs no state on disk. The creation time keeps a key that
// was deleted and made anew under its old name from reusing a key_id, which
// KEP-3299 forbids ("key_id and rotation"). The creation time is absent when
// Vault's policy denies reading the key.
package keyid

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// MaxSize is the longest key_id, in bytes, that kube-apiserver accepts
// (KeyIDMaxSize in apiserver/pkg/storage/value/encrypt/envelope/kmsv2).
const MaxSize = 1024

// ID is a key_id taken apart.
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

// Parse reads a key_id as [ID.String] writes it, and accepts nothing else: for
// every accepted s, the result's String is s. Its errors do not repeat s, which
// may come from whoever can write to etcd.
func Parse(s string) (ID, error) {
	if len(s) > MaxSize {
		return ID{}, fmt.Errorf("key_id is %d bytes long, at most %d are allowed", len(s), MaxSize)
	}
	path, version, ok := cutLast(s, "/v")
	if !ok {
		return ID{}, errors.New("key_id does not end in /v<version>")
	}
	var id ID
	id.Engine, id.Key, ok = cutLast(path, "/")
	if !ok || id.Engine == "" || id.Key == "" {
		return ID{}, errors.New("key_id does not begin with <mount>/<key>")
	}
	version, created, dated := strings.Cut(version, "@")
	v, err := strconv.ParseInt(version, 10, 32)
	if err != nil || v < 1 {
		return ID{}, errors.New("key_id's version is not a positive number")
	}
	id.Version = int(v)
	if dated {
		id.Created, err = strconv.ParseInt(created, 10, 64)
		if err != nil || id.Created < 1 {
			return ID{}, errors.New("key_id's creation time is not a positive number of seconds")
		}
	}
	if id.String() != s {
		return ID{}, errors.New("key_id is not in its canonical form")
	}
	return id, nil
}

// Hash returns "sha256:" and the hex digest of a key_id: the form in which
// kube-apiserver's metrics (apiserver_envelope_encryption_key_id_hash_total and
// its kin) label it.
func Hash(keyID string) string {
	sum := sha256.Sum256([]byte(keyID))
	return "sha256:" + hex.EncodeToString(sum[:])
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}
