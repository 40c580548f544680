// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"crypto/sha256"

	kmstypes "k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2/v2"

	"github.com/trousseau-io/trousseau/internal/ctl/audit/drill"
	"github.com/trousseau-io/trousseau/internal/ctl/audit/stored"
	"github.com/trousseau-io/trousseau/internal/keyid"
	"github.com/trousseau-io/trousseau/internal/seed"
)

// digest identifies a wrapped seed. Seeds that differ in key_id, ciphertext or
// annotations are distinct, as they are for kube-apiserver (generateCacheKey in
// k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2/envelope.go).
type digest [16]byte

func digestOf(v stored.Value) digest {
	s := seedOf(v)
	text := s.Identity() + v.Name
	if s.DEK {
		text += "\x00dek"
	}
	sum := sha256.Sum256([]byte(text))
	return digest(sum[:])
}

// seedOf returns what the plugin unwraps for a value. KMS v1 has no key_id.
func seedOf(v stored.Value) drill.Seed {
	if v.Object == nil {
		return drill.Seed{Wrapped: seed.Wrapped{Ciphertext: v.Wrapped}, DEK: true}
	}
	return drill.Seed{
		Wrapped: seed.Wrapped{KeyID: v.Object.KeyID, Ciphertext: v.Wrapped, Annotations: v.Object.Annotations},
		DEK:     v.Object.EncryptedDEKSourceType == kmstypes.EncryptedDEKSourceType_AES_GCM_KEY,
	}
}

// seeds are the distinct seeds for a drill.
type seeds struct {
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

func newSeeds() seeds { return seeds{index: make(map[digest]int)} }

// keep keeps the seed of a value.
func (s *seeds) keep(v stored.Value, key string) {
	d := digestOf(v)
	i, known := s.index[d]
	if !known {
		i = len(s.kept)
		s.index[d] = i
		k := &kept{Seed: seedOf(v), digest: d, provider: v.Name}
		_, err := keyid.Parse(k.KeyID)
		k.Foreign = err != nil
		s.kept = append(s.kept, k)
	}
	s.kept[i].objects++
	s.kept[i].first.add(key)
}
