// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/trousseau-io/trousseau/internal/config"
	"github.com/trousseau-io/trousseau/internal/ctl/vaultview"
	"github.com/trousseau-io/trousseau/internal/upstream"
	"github.com/trousseau-io/trousseau/internal/vault"
)

// keyVersion is the newest version of a key.
type keyVersion struct {
	number  int
	created int64 // in unix seconds; 0 if it is not known
}

// old is when a version should have had a successor.
const old = 365 * day

// keys looks at each key, and uses the first one.
func (e *examination) keys(ctx context.Context) {
	v := e.config.Vault
	e.latest = map[string]keyVersion{}
	for _, name := range v.KeyNames {
		var k vaultview.Key
		read := false
		e.check(ctx, "key", name, func(ctx context.Context) (o outcome) {
			k, o = e.key(ctx, name)
			if read = o.result == OK; read {
				e.latest[name] = newest(k)
			}
			return o
		}, "token")
		look := func(judge func() outcome) func(context.Context) outcome {
			return func(context.Context) outcome {
				if !read {
					return skip("the key may not be read")
				}
				return judge()
			}
		}
		path := v.TransitPath + "/keys/" + name
		e.check(ctx, "key-settings", name, look(func() outcome { return settings(k, path) }), ground("key", name))
		e.check(ctx, "key-versions", name, look(func() outcome { return versions(k, e.latest[name], path) }), ground("key", name))
	}
	active := v.KeyNames[0]
	e.check(ctx, "round-trip", active, func(ctx context.Context) outcome { return e.roundTrip(ctx, active) }, "token", ground("key", active),
		ground("policy-needs", v.TransitPath+"/encrypt/"+active), ground("policy-needs", v.TransitPath+"/decrypt/"+active))
}

func (e *examination) key(ctx context.Context, name string) (vaultview.Key, outcome) {
	k, err := e.vault.Key(ctx, name)
	path := e.config.Vault.TransitPath + "/keys/" + name
	switch {
	case vaultview.Denied(err):
		return k, warn("Let its policy read "+path+", so that this can look at it.", "it may not be read (403)")
	case vaultview.Absent(err):
		return k, fail("See keynames, transitPath and namespace; make it with vault write -f "+path+", unless there is data that one of this name has encrypted.", "there is none at %s (404)", path)
	case err != nil:
		return k, fail("See Vault's log.", "%s: %s", path, reason(err))
	case k.SupportsEncryption != nil && !*k.SupportsEncryption, !strings.HasPrefix(k.Type, "aes") && !strings.HasPrefix(k.Type, "chacha20"):
		return k, fail("Make another one, of type aes256-gcm96, and put it into keynames.", "it is of type %s, which cannot encrypt seeds", k.Type)
	case k.Derived:
		return k, fail("Make another one, with derived=false, and put it into keynames.", "it is derived: each call would need a context, which trousseau has not")
	}
	return k, ok("of type %s, version %d", k.Type, k.Latest)
}

func newest(k vaultview.Key) keyVersion {
	v := keyVersion{number: k.Latest}
	_ = json.Unmarshal(k.Versions[strconv.Itoa(k.Latest)], &v.created) // 0 if it is none
	return v
}

// settings are those by which a key could get away.
func settings(k vaultview.Key, path string) outcome {
	var seen, fix []string
	if k.Exportable {
		seen = append(seen, "exportable: whoever may read export/ has it")
	}
	if k.AllowPlaintextBackup {
		seen = append(seen, "allow_plaintext_backup: whoever may read backup/ has it")
	}
	if len(seen) > 0 {
		fix = append(fix, "That cannot be undone: make another key, put it first in keynames, and have everything encrypted anew.")
	}
	if k.DeletionAllowed {
		seen = append(seen, "deletion_allowed: with it goes everything that it encrypted")
		fix = append(fix, "Forbid it: vault write "+path+"/config deletion_allowed=false")
	}
	if len(seen) > 0 {
		return warn(strings.Join(fix, " "), "%s", strings.Join(seen, "; "))
	}
	return ok("not exportable, no plaintext backup, deletion not allowed")
}

func versions(k vaultview.Key, latest keyVersion, path string) outcome {
	if k.MinEncryption > k.Latest {
		return fail("Lift that: vault write "+path+"/config min_encryption_version=0", "min_encryption_version is %d, and the newest is %d", k.MinEncryption, k.Latest)
	}
	if k.MinDecryption > 1 {
		return warn("See with trousseauctl audit that nothing in etcd is under an older one; otherwise vault write "+path+"/config min_decryption_version=1",
			"min_decryption_version is %d: what older versions have encrypted cannot be read", k.MinDecryption)
	}
	rotation := "never rotated by itself"
	if k.AutoRotatePeriod > 0 {
		rotation = "rotated by itself every " + span(time.Duration(k.AutoRotatePeriod)*time.Second)
	}
	if latest.created == 0 {
		return ok("version %d, %s", k.Latest, rotation)
	}
	age := time.Since(time.Unix(latest.created, 0))
	if age > old {
		return warn("Rotate it: vault write -f "+path+"/rotate, or set auto_rotate_period.", "version %d is %s old, %s", k.Latest, span(age), rotation)
	}
	return ok("version %d is %s old, %s", k.Latest, span(max(age, 0)), rotation)
}

// roundTrip does with the key what the daemon does, the same way.
func (e *examination) roundTrip(ctx context.Context, name string) outcome {
	v := e.config.Vault
	dial := upstream.Config(&v)
	dial.Addresses = []string{e.vault.Address()}
	if v.Credential.Method != config.Proxied {
		dial.Credential = vault.Given(e.vault.Bearer().Reveal())
	}
	client, err := vault.Dial(dial)
	if err != nil {
		return fail("See the configuration.", "%v", err)
	}
	defer client.Close()
	seed := make([]byte, 32)
	_, _ = rand.Read(seed) // never fails
	data := []byte(v.AssociatedData)
	began := time.Now()
	wrapped, _, err := client.Encrypt(ctx, name, 0, seed, data)
	encrypted := time.Since(began)
	if err != nil {
		return fail("See what it says, and Vault's log.", "%v", err)
	}
	plain, err := client.Decrypt(ctx, name, wrapped, data)
	took := time.Since(began)
	switch {
	case err != nil:
		return fail("See what it says, and Vault's log.", "%v", err)
	case !bytes.Equal(plain, seed):
		return fail("See what is between here and Vault.", "what came back is not what was encrypted")
	}
	decrypted := took - encrypted
	if slow := max(encrypted, decrypted); slow > e.RequestTimeout/2 {
		return warn("See the way to Vault and its load; trousseau gives up after --request-timeout.", "one call took %s, of the %s that it may", slow.Round(time.Millisecond), e.RequestTimeout)
	}
	return ok("encrypted within %s, decrypted within %s", encrypted.Round(100*time.Microsecond), decrypted.Round(100*time.Microsecond))
}
