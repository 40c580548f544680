// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"context"
	"fmt"
)

// keyType is Vault's default.
const keyType = "aes256-gcm96"

// transit plans the engine and its keys.
func (p *planner) transit(ctx context.Context) error {
	at := p.options.TransitMount
	mounts, err := p.mounts(ctx, "sys/mounts")
	if err != nil {
		return err
	}
	m, mounted := mounts[at+"/"]
	switch {
	case !mounted:
		p.write(Create, "transit engine at "+at+"/", nil, "vault secrets enable -path="+quote(at)+" transit",
			"sys/mounts/"+at, map[string]any{"type": "transit"})
	case m.kind != "transit":
		return fmt.Errorf("the engine at %s/ is of type %s: name another path with --transit-mount", at, m.kind)
	default:
		p.keep("transit engine at " + at + "/")
	}
	for _, key := range p.options.Keys {
		if err := p.key(ctx, at, key, mounted); err != nil {
			return err
		}
	}
	return nil
}

func (p *planner) key(ctx context.Context, at, key string, mounted bool) error {
	path := at + "/keys/" + key
	var found map[string]any
	if mounted {
		var err error
		if found, err = p.vault.Read(ctx, path); err != nil {
			return err
		}
	}
	if found == nil {
		p.write(Create, "key "+path, []string{keyType + ", not exportable, cannot be deleted"},
			"vault write "+quote(path)+" type="+keyType, path, map[string]any{"type": keyType})
		return nil
	}
	if harm := unfit(found); harm != "" {
		return fmt.Errorf("key %s %s: name another key with --key; if this one is in use already, the documentation says under \"keynames\" how to change keys", path, harm)
	}
	if yes(found["deletion_allowed"]) {
		p.write(Change, "key "+path, []string{"deletion_allowed: false, was true"},
			"vault write "+quote(path+"/config")+" deletion_allowed=false", path+"/config", map[string]any{"deletion_allowed": false})
		return nil
	}
	p.keep("key "+path, fmt.Sprintf("%s, version %s", keyType, text(found["latest_version"])))
	return nil
}

// unfit returns why a key must not protect Secrets. None of these properties can be
// changed, so another key is needed.
func unfit(key map[string]any) string {
	switch {
	case text(key["type"]) != keyType:
		return fmt.Sprintf("is of type %s, not %s", text(key["type"]), keyType)
	case yes(key["derived"]):
		return "is derived, so every request would need a context"
	case yes(key["exportable"]):
		return "is exportable, so it may have left Vault"
	case yes(key["allow_plaintext_backup"]):
		return "allows backups in plaintext, so it may have left Vault"
	case yes(key["soft_deleted"]):
		return "is soft-deleted"
	}
	return ""
}
