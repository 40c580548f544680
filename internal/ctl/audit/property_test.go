// SPDX-License-Identifier: Apache-2.0

package audit_test

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/trousseau-io/trousseau/internal/ctl/audit"
	"github.com/trousseau-io/trousseau/internal/ctl/etcd"
	"github.com/trousseau-io/trousseau/internal/seed"
	"github.com/trousseau-io/trousseau/internal/testkit/storedtest"
	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
	"github.com/trousseau-io/trousseau/internal/vault"
)

// mixes generates what an etcd holds, wrapped by the keys of a Vault.
type mixes struct {
	*rand.Rand
	client *vault.Client
	keys   map[string]*vaulttest.Key
	// wrapped are ciphertexts by key and version.
	wrapped map[string][][]byte
}

// dependent is a ciphertext that must stay readable.
type dependent struct {
	key, what  string
	ciphertext []byte
}

const versionsOfEach = 5

func newMixes(t *testing.T) *mixes {
	t.Helper()
	v := vaulttest.Start(t)
	m := &mixes{Rand: rand.New(rand.NewPCG(16, 16)), keys: make(map[string]*vaulttest.Key), wrapped: make(map[string][][]byte)}
	for _, key := range []string{"kms", "eu"} {
		m.keys[key] = v.CreateKey(key)
	}
	nodes, err := vault.Dial(vault.Config{Addresses: []string{v.URL()}, Mount: "transit", Credential: vault.Given(v.KMSToken("kms", "eu"))})
	if err != nil {
		t.Fatal(err)
	}
	m.client = nodes[0]
	t.Cleanup(m.client.Close)
	for name, key := range m.keys {
		for version := range versionsOfEach {
			if version > 0 {
				key.Rotate()
			}
			text, _, err := m.client.Encrypt(t.Context(), name, 0, make([]byte, 32), nil)
			if err != nil {
				t.Fatal(err)
			}
			m.wrapped[name] = append(m.wrapped[name], text)
		}
	}
	return m
}

// value returns a value and what it depends on; nil if no transit key can make it
// readable. Simple values name the version that they need.
func (m *mixes) value(simple bool) ([]byte, *dependent) {
	key := []string{"kms", "eu"}[m.IntN(2)]
	// Most clusters have rotated away from the first versions.
	version := versionsOfEach - 1 - m.IntN(1+m.IntN(versionsOfEach))
	ciphertext := m.wrapped[key][version]
	needs := func(what string) *dependent {
		return &dependent{key, fmt.Sprintf("%s under %s v%d", what, key, version+1), ciphertext}
	}
	bare := []string{fmt.Sprint(version + 1), key, "sha256:" + key, fmt.Sprintf("v%d", version+1)}[m.IntN(4)]
	provider := []string{"trousseau", "other"}[m.IntN(2)]
	kinds := 9
	if simple {
		kinds = 6
	}
	switch m.IntN(kinds) {
	case 0:
		return storedtest.Protobuf(), nil
	case 1:
		return storedtest.Secretbox("k"), nil
	case 2:
		return storedtest.KMSv1(provider, ciphertext), needs("KMS v1")
	case 3:
		return storedtest.KMSv2(provider, seed.Wrapped{KeyID: bare, Ciphertext: ciphertext}), needs("key_id " + bare)
	case 4, 5:
		id := fmt.Sprintf("transit/%s/v%d@%d", key, version+1, 1700000000+version)
		return storedtest.KMSv2(provider, seed.Wrapped{KeyID: id, Ciphertext: ciphertext}), needs("key_id " + id)
	case 6: // as a plugin may keep it
		encoded := [][]byte{
			[]byte(base64.StdEncoding.EncodeToString(ciphertext)), fmt.Appendf(nil, `{"ciphertext":%q}`, ciphertext), ciphertext[len("vault:v1:"):],
		}[m.IntN(3)]
		if m.IntN(2) == 0 {
			return storedtest.KMSv1(provider, encoded), needs("KMS v1, encoded")
		}
		return storedtest.KMSv2(provider, seed.Wrapped{KeyID: bare, Ciphertext: encoded}), needs("encoded")
	case 7:
		whole := storedtest.KMSv2(provider, seed.Wrapped{KeyID: bare, Ciphertext: ciphertext})
		return whole[:len(whole)-1-m.IntN(300)], needs("truncated, but repaired later")
	}
	return storedtest.KMSv2(provider, seed.Wrapped{KeyID: fmt.Sprintf("transit/%s/v%d", key, version), Ciphertext: ciphertext}), needs("of two versions")
}

// For any mix of values, the min_decryption_version that the audit allows leaves every
// value readable: Vault decrypts all of them with the versions that are left.
func TestWhatIsAllowedLosesNothing(t *testing.T) {
	m := newMixes(t)
	raised, unknown := 0, 0
	for run := range 400 {
		opts := audit.Options{Prefixes: []string{"/registry/"}}
		switch m.IntN(6) {
		case 0:
			opts.Prefixes = append(opts.Prefixes, "/kubernetes.io/")
		case 1:
			opts.Asked = []string{"secrets"}
		}
		source := live
		source.OutsideUnread = m.IntN(3) == 0
		simple := m.IntN(3) > 0
		a := audit.New(opts)
		var all []dependent
		for i := range 1 + m.IntN(6) {
			value, needs := m.value(simple)
			if needs != nil {
				all = append(all, *needs)
			}
			o := etcd.Object{Key: fmt.Appendf(nil, "/registry/%s/a/%d", []string{"secrets", "configmaps"}[m.IntN(2)], i), Value: value, Revision: int64(i + 1)}
			inside := m.IntN(3) > 0
			switch {
			case !inside && len(opts.Prefixes) == 1 && (source.OutsideUnread || opts.Asked != nil):
				continue
			case !inside && len(opts.Prefixes) == 1:
				o.Key = fmt.Appendf(nil, "/kubernetes.io/secrets/a/%d", i)
				_ = a.AddOutside(o)
				continue
			case !inside:
				o.Key = fmt.Appendf(nil, "/kubernetes.io/secrets/a/%d", i)
			}
			_ = a.Add(o)
		}
		r := a.Report(source)
		for _, k := range r.TransitKeys {
			switch {
			case k.MayBecome == 0:
				unknown++
			case k.MayBecome > 1:
				raised++
				fallthrough
			default:
				m.keys[k.Key].SetMinDecryptionVersion(k.MayBecome)
			}
		}
		for _, d := range all {
			if _, err := m.client.Decrypt(t.Context(), d.key, d.ciphertext, nil); err != nil {
				t.Errorf("run %d: %s is unreadable: %v\nof %+v\nallowed: %+v", run, d.what, err, all, r.TransitKeys)
			}
		}
		for _, key := range m.keys {
			key.SetMinDecryptionVersion(1)
		}
		if t.Failed() {
			return
		}
	}
	if raised < 50 || unknown < 50 {
		t.Errorf("%d keys were raised and %d are unknown: the test proves nothing", raised, unknown)
	}
}
