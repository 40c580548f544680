// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"crypto/sha256"

	kmstypes "k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2/v2"

	"github.com/trousseau-io/trousseau/internal/ctl/audit/drill"
	"github.com/trousseau-io/trousseau/internal/ctl/audit/stored"
)

// digest identifies a wrapped seed. Seeds that differ in key_id, ciphertext or
// annotations are distinct, as they are for kube-apiserver (generateCacheKey in
// k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2/envelope.go).
type digest [16]byte

// seeds tells seeds apart, and keeps them if keep is set.
type seeds struct {
	keep  bool
	index map[digest]int
	kept  []*kept
}

// kept is a seed and the objects that depend on it.
type kept struct {
	drill.Seed
	digest   digest
	provider string
	objects  int
	first    firstKeys
}

func newSeeds(keep bool) seeds {
	return seeds{keep: keep, index: make(map[digest]int)}
}

// add records the seed of a KMS v2 value.
func (s *seeds) add(v stored.Value, key string) digest {
	w := wrapped(v)
	dek := v.Object.EncryptedDEKSourceType == kmstypes.EncryptedDEKSourceType_AES_GCM_KEY
	text := w.Identity() + v.Name
	if dek {
		text += "\x00dek"
	}
	sum := sha256.Sum256([]byte(text))
	d := digest(sum[:])
	if !s.keep {
		return d
	}
	i, known := s.index[d]
	if !known {
		i = len(s.kept)
		s.index[d] = i
		s.kept = append(s.kept, &kept{Seed: drill.Seed{Wrapped: w, DEK: dek}, digest: d, provider: v.Name})
	}
	s.kept[i].objects++
	s.kept[i].first.add(key)
	return d
}
