// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"fmt"
	"strings"

	"github.com/trousseau-io/trousseau/internal/ctl/audit/stored"
	"github.com/trousseau-io/trousseau/internal/ctl/etcd"
	"github.com/trousseau-io/trousseau/internal/ctl/text"
)

// notes are what you need to know to judge the rest of the report.
func notes(r *Report) []string {
	all := []string{}
	if r.Source.Checksum == etcd.ChecksumMissing {
		all = append(all, "The file has no SHA-256 at its end, as etcdctl snapshot save writes it, so it could not be checked for damage. A copy of a member's database is fine if etcd was stopped when it was made.")
	}
	for _, s := range r.Source.Resumptions {
		all = append(all, fmt.Sprintf("etcd was compacted during the audit: keys from %s on were read at revision %d. Objects written in the meantime are counted in their old or their new form.", s.Key, s.Revision))
	}
	if r.Source.OutsideUnread {
		all = append(all, fmt.Sprintf("The etcd user may not read outside of %s: encrypted values there, such as those of another API server, were not counted.", strings.Join(r.Source.Prefixes, " and ")))
	}
	for _, k := range recreated(r) {
		all = append(all, fmt.Sprintf("The key was deleted and recreated: key_id %s has the same version as another one, but a different creation time. Vault can unwrap only the seeds of the key that it has now. Use --verify to find them.", k.KeyID))
	}
	if r.Drill != nil {
		if left := count(r, stored.AESCBC, stored.AESGCM, stored.Secretbox); left > 0 {
			all = append(all, fmt.Sprintf("%s encrypted with a local key, and could not be verified.", text.Are(left, "object")))
		}
		all = append(all, "A seed that unwraps proves that the key exists. Only kube-apiserver can tell whether the object itself is undamaged, by reading it.")
	}
	if r.Source.Asked != nil {
		for _, name := range r.Source.Asked {
			if !found(r, name) {
				all = append(all, "There is no object of "+quoted(name)+": check that you spell it as in EncryptionConfiguration.")
			}
		}
	}
	if count(r, stored.Other) > 0 {
		all = append(all, fmt.Sprintf("%s in the clear in an unknown encoding (other).", text.Are(count(r, stored.Other), "object")))
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
