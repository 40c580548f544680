// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/trousseau-io/trousseau/internal/ctl/fleet"
	"github.com/trousseau-io/trousseau/internal/ctl/rotate"
	"github.com/trousseau-io/trousseau/internal/ctl/vaultadmin"
	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

// secretReader reads the KV secret of a cluster, "-NAME" or "", with the rights of its
// agent.
func secretReader(ts *testscript.TestScript, cluster string) func() map[string]any {
	token := storyOf(ts).vault.CreateToken(vaulttest.TokenOptions{Policies: []string{"trousseau-agent" + cluster}})
	ctx, c := callVault(ts, token.ID)
	return func() map[string]any {
		found, err := c.Read(ctx, "secret/data/trousseau/config"+cluster)
		ts.Check(err)
		fields, _ := found["data"].(map[string]any)
		return fields
	}
}

// agent TEMPLATE FILE... plays the Vault Agents of several nodes: it renders each
// FILE from the secret as soon as the token in the secret changes.
func cmdAgent(ts *testscript.TestScript, neg bool, args []string) {
	template, read := ts.ReadFile(args[0]), secretReader(ts, "")
	for _, name := range args[1:] {
		file := ts.MkAbs(name)
		was, err := os.ReadFile(file)
		if err != nil && !os.IsNotExist(err) {
			ts.Check(err)
		}
		end := time.Now().Add(patience)
		for fields := read(); ; fields = read() {
			if token := fmt.Sprint(fields["vaulttoken"]); !strings.Contains(string(was), token) {
				text := os.Expand(template, func(field string) string { return fmt.Sprint(fields[field]) })
				ts.Check(os.WriteFile(file+".new", []byte(text), 0o600))
				ts.Check(os.Rename(file+".new", file))
				break
			}
			if time.Now().After(end) {
				ts.Fatalf("agent: the secret still has the token of %s", name)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// token NAME [CLUSTER] gives the token in the secret a name, and sets the variable NAME
// to its accessor.
func cmdToken(ts *testscript.TestScript, neg bool, args []string) {
	cluster := ""
	if len(args) > 1 {
		cluster = "-" + args[1]
	}
	token := fmt.Sprint(secretReader(ts, cluster)()["vaulttoken"])
	ctx, c := callVault(ts, storyOf(ts).vault.RootToken())
	info, err := c.Lookup(ctx, token)
	ts.Check(err)
	storyOf(ts).tokens[args[0]] = token
	ts.Setenv(args[0], info.Accessor)
}

// newline appends a line end to the values of the secret, as `vault kv put` does with
// many files.
func cmdNewline(ts *testscript.TestScript, neg bool, args []string) {
	fields := map[string]any{}
	for name, value := range secretReader(ts, "")() {
		fields[name] = fmt.Sprint(value) + "\n"
	}
	storyOf(ts).vault.PutSecret("trousseau/config", fields)
}

// [!] encrypts NAME KEY fails unless the named token can encrypt with the key; with !,
// if it can.
func cmdEncrypts(ts *testscript.TestScript, neg bool, args []string) {
	ctx, c := callVault(ts, storyOf(ts).tokens[args[0]])
	_, err := c.Write(ctx, "transit/encrypt/"+args[1], map[string]any{"plaintext": "c2VlZA=="})
	if (err == nil) == neg || err != nil && !vaultadmin.Denied(err) {
		ts.Fatalf("encrypts: the %s token and %s: %v", args[0], args[1], err)
	}
}

// [!] alive NAME... fails unless Vault accepts the named tokens; with !, if it does.
func cmdAlive(ts *testscript.TestScript, neg bool, args []string) {
	for _, name := range args {
		if storyOf(ts).vault.TokenAlive(storyOf(ts).tokens[name]) == neg {
			ts.Fatalf("alive: the %s token: got %t", name, neg)
		}
	}
}

// serves NAME ADDR... waits until the nodes at these addresses use the named token.
func cmdServes(ts *testscript.TestScript, neg bool, args []string) {
	want := rotate.Hash(ts.Getenv(args[0]))
	nodes, err := fleet.ParseNodes(args[1:])
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, n := range nodes {
		for s, err := n.Fetch(ctx); err != nil || s.Token.AccessorHash != want; s, err = n.Fetch(ctx) {
			if ctx.Err() != nil {
				ts.Fatalf("serves: %s still does not serve the %s token", n, args[0])
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}
