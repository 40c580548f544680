// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"fmt"

	"github.com/trousseau-io/trousseau/internal/ctl/audit/stored"
	"github.com/trousseau-io/trousseau/internal/ctl/etcd"
)

// notes are what the reader has to know to judge the rest.
func notes(r *Report) []string {
	all := []string{}
	if r.Source.Checksum == etcd.ChecksumMissing {
		all = append(all, "The file does not end in a SHA-256, as what etcdctl snapshot save wrote does: it may be a copy of a member's database, which is as good if etcd was stopped. Whether it is whole could not be checked.")
	}
	for _, s := range r.Source.Resumptions {
		all = append(all, fmt.Sprintf("etcd was compacted while it was read: from %s on, keys were read at revision %d. What was written meanwhile is counted as it was, or as it is now.", s.Key, s.Revision))
	}
	for _, k := range madeAnew(r) {
		all = append(all, fmt.Sprintf("Key_id %s names another creation time than one of the same version does: the key was deleted and made anew, and Vault unwraps only what the one that it has now wrapped. Use --verify.", k.KeyID))
	}
	if r.Drill != nil {
		left := r.Objects
		for _, k := range r.KeyIDs {
			left -= k.Objects
		}
		clear := 0
		for _, res := range r.Resources {
			clear += res.Clear
		}
		if left -= clear; left > 0 {
			all = append(all, fmt.Sprintf("%s encrypted by something other than KMS v2, or malformed, and could not be verified.", capital(verb(left))))
		}
		all = append(all, "Unwrapping the seed of an object shows that its key is there. That the object itself is undamaged shows when kube-apiserver reads it.")
	}
	if r.Source.Asked != nil {
		for _, name := range r.Source.Asked {
			if !found(r, name) {
				all = append(all, "There is no object of "+printable(name)+": is it spelled as in EncryptionConfiguration?")
			}
		}
	}
	if count(r, stored.Other) > 0 {
		all = append(all, fmt.Sprintf("%s in the clear in no encoding of Kubernetes' (other).", capital(verb(count(r, stored.Other)))))
	}
	return all
}

func found(r *Report, name string) bool {
	for _, res := range r.Resources {
		for _, p := range stored.Prefixes("", name) {
			for _, q := range stored.Prefixes("", res.Name) {
				if p == q && res.Objects > 0 {
					return true
				}
			}
		}
	}
	return false
}
