// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"fmt"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/trousseau-io/trousseau/internal/keyid"
	"github.com/trousseau-io/trousseau/internal/seed"
	"github.com/trousseau-io/trousseau/internal/testkit/etcdtest"
	"github.com/trousseau-io/trousseau/internal/testkit/storedtest"
	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
	"github.com/trousseau-io/trousseau/internal/vault"
)

// etcd-snapshot STEPS FILE writes an etcd snapshot after the steps in a file, one
// per line:
//
//	seed                  Vault encrypts a new seed with the key's newest version
//	put KEY FORM [N]      objects KEY-1 to KEY-N, or just KEY: kms, clear, json,
//	                      aescbc, secretbox, malformed, another plugin's, or under
//	                      the seed with KMS v1 (kms-v1) or a plugin whose key_id is a
//	                      bare version (bare); a KEY with a slash first is under
//	                      another prefix
//	delete KEY
//	rotate                the transit key
//	minimum N             the transit key's min_decryption_version
//	no-checksum           the file is a member's database and no snapshot
func cmdEtcdSnapshot(ts *testscript.TestScript, neg bool, args []string) {
	f, err := etcdtest.Create(ts.MkAbs(args[1]))
	ts.Check(err)
	h := &history{ts: ts, file: f, vault: storyOf(ts).vault, end: f.Snapshot}
	h.key = h.vault.Transit().Key(keyName)
	lines := bufio.NewScanner(strings.NewReader(ts.ReadFile(args[0])))
	for lines.Scan() {
		if step := strings.Fields(lines.Text()); len(step) > 0 {
			h.step(step)
		}
	}
	ts.Check(h.end())
}

// history is the state of an etcd and its objects.
type history struct {
	ts    *testscript.TestScript
	file  *etcdtest.File
	vault *vaulttest.Server
	key   *vaulttest.Key
	seed  seed.Wrapped
	end   func() error
}

func (h *history) step(step []string) {
	switch step[0] {
	case "seed":
		h.seed = h.wrap()
	case "put":
		if !strings.HasPrefix(step[1], "/") {
			step[1] = "/registry/" + step[1]
		}
		if len(step) == 3 {
			h.file.Put(step[1], h.value(step[2]))
			return
		}
		n, err := strconv.Atoi(step[3])
		h.ts.Check(err)
		for i := range n {
			h.file.Put(fmt.Sprintf("%s-%d", step[1], i+1), h.value(step[2]))
		}
	case "delete":
		h.file.Delete("/registry/" + step[1])
	case "rotate":
		h.key.Rotate()
	case "minimum":
		n, err := strconv.Atoi(step[1])
		h.ts.Check(err)
		h.key.SetMinDecryptionVersion(n)
	case "no-checksum":
		h.end = h.file.Close
	default:
		h.ts.Fatalf("etcd-snapshot: unknown step %s", step[0])
	}
}

func (h *history) value(form string) []byte {
	switch form {
	case "kms":
		return storedtest.KMSv2("trousseau", h.seed)
	case "clear":
		return storedtest.Protobuf()
	case "json":
		return storedtest.JSON()
	case "aescbc":
		return storedtest.AESCBC("key1")
	case "secretbox":
		return storedtest.Secretbox("key1")
	case "kms-v1":
		return storedtest.KMSv1("old", h.seed.Ciphertext)
	case "bare":
		return storedtest.KMSv2("falco", seed.Wrapped{KeyID: "1", Ciphertext: h.seed.Ciphertext})
	case "malformed":
		return []byte("k8s:enc:kms:v2:trousseau:" + storedtest.Secret)
	case "another":
		return storedtest.KMSv2("aws", seed.Wrapped{KeyID: "arn:aws:kms", Ciphertext: []byte("AQIDBA==")})
	}
	h.ts.Fatalf("etcd-snapshot: unknown form %s", form)
	return nil
}

// wrap encrypts a new seed with Vault and sets its key_id as Trousseau does.
func (h *history) wrap() seed.Wrapped {
	nodes, err := vault.Dial(vault.Config{Addresses: []string{h.vault.URL()}, Mount: "transit", Credential: vault.Given(h.ts.Getenv("TOKEN"))})
	h.ts.Check(err)
	client := nodes[0]
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	plaintext := make([]byte, 32)
	rand.Read(plaintext)
	ciphertext, version, err := client.Encrypt(ctx, keyName, 0, plaintext, nil)
	h.ts.Check(err)
	id := keyid.ID{Engine: client.Engine(), Key: keyName, Version: version, Created: h.key.Created(version).Unix()}
	return seed.Wrapped{KeyID: id.String(), Ciphertext: ciphertext}
}
