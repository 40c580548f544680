// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/trousseau-io/trousseau/internal/ctl/vaultadmin"
	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

// callVault calls the story's Vault with a token.
func callVault(ts *testscript.TestScript, token string) (context.Context, *vaultadmin.Client) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	ts.Defer(cancel)
	c, err := vaultadmin.Dial(vaultadmin.Config{Address: storyOf(ts).vault.URL()}.WithToken(token))
	ts.Check(err)
	return ctx, c
}

// writeVault writes fields, each NAME=VALUE or NAME=@FILE, as an administrator.
func writeVault(ts *testscript.TestScript, path string, fields []string) {
	body := map[string]any{}
	for _, field := range fields {
		name, value, _ := strings.Cut(field, "=")
		if file, ok := strings.CutPrefix(value, "@"); ok {
			value = ts.ReadFile(file)
		}
		body[name] = value
	}
	ctx, c := callVault(ts, storyOf(ts).vault.RootToken())
	_, err := c.Write(ctx, path, body)
	ts.Check(err)
}

// login ROLE POLICY logs in as the service account kube-system/trousseau and expects
// a token with exactly this policy and Vault's default policy.
func cmdLogin(ts *testscript.TestScript, neg bool, args []string) {
	v := storyOf(ts).vault
	jwt := v.EnableKubernetes("", "kubernetes").NewJWT(args[0])
	before := v.Tokens()
	ctx, admin := callVault(ts, v.RootToken())
	// A login ignores the caller's token.
	_, err := admin.Write(ctx, "auth/kubernetes/login", map[string]any{"role": args[0], "jwt": jwt})
	ts.Check(err)
	made := slices.DeleteFunc(v.Tokens(), func(t vaulttest.Token) bool { return slices.Contains(before, t) })
	info, err := admin.LookupAccessor(ctx, made[0].Accessor)
	ts.Check(err)
	if want := []string{"default", args[1]}; !slices.Equal(info.Policies, want) {
		ts.Fatalf("login %s: got a token with %v, want %v", args[0], info.Policies, want)
	}
}
