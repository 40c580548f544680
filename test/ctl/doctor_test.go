// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// examined holds the tested fields of a doctor report.
type examined struct {
	Healthy  bool
	Findings []struct{ Check, Subject, Result, Seen string }
}

// with returns the checks with a result.
func (e examined) with(result string) (names []string) {
	for _, f := range e.Findings {
		if f.Result == result {
			names = append(names, f.Check)
		}
	}
	return slices.Compact(names)
}

// An operator runs trousseauctl doctor on a node: while everything is healthy, while
// Vault is sealed, and after the token was revoked.
func TestDoctor(t *testing.T) {
	bed := testbed.New(t, &report, "6 trousseauctl doctor")
	c := testbed.SetUp(bed, testbed.Options{TrousseauFlags: []string{"--probe-interval=1s"}})
	node := c.Nodes[0]
	node.APIServer.AwaitPage("/readyz/kms-providers")
	program, err := trousseauctl()
	if err != nil {
		t.Fatal(err)
	}
	ops := ""
	for _, arg := range node.Trousseau.Args {
		if addr, found := strings.CutPrefix(arg, "--ops-addr="); found {
			ops = addr
		}
	}
	doctor := func(ctx context.Context) (e examined, code int, text string) {
		var out, errs bytes.Buffer
		cmd := exec.CommandContext(ctx, program, "doctor", "--config", node.ConfigFile, "--socket", "unix://"+node.Trousseau.Socket,
			"--ops", ops, "--encryption-config", filepath.Join(node.Dir, "encryption-config.yaml"),
			"--kubeconfig", node.APIServer.Kubeconfig(), "-o", "json")
		cmd.Stdout, cmd.Stderr = &out, &errs
		err := cmd.Run()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			return e, -1, err.Error()
		}
		text = out.String() + errs.String()
		if strings.Contains(text, "hvs.") {
			return e, -1, "the output contains a token"
		}
		if err := json.Unmarshal(out.Bytes(), &e); err != nil {
			return e, -1, text
		}
		return e, cmd.ProcessState.ExitCode(), text
	}
	await := func(what string, wantCode int, wantFailed ...string) examined {
		t.Helper()
		var last examined
		bed.Await(time.Minute, "doctor to find "+what, func(ctx context.Context) error {
			e, code, text := doctor(ctx)
			failed := e.with("fail")
			last = e
			if code != wantCode || !slices.Equal(failed, wantFailed) {
				return fmt.Errorf("exit code %d, failed %v, want %d and %v: %s", code, failed, wantCode, wantFailed, text)
			}
			return nil
		})
		return last
	}

	// The documented EncryptionConfiguration still reads plaintext.
	well := await("nothing wrong", 0)
	// The latency depends on the machine's load.
	warned := slices.DeleteFunc(well.with("warn"), func(check string) bool { return check == "round-trip" })
	if got, want := warned, []string{"encryption-identity"}; !slices.Equal(got, want) {
		t.Errorf("warnings %v, want %v", got, want)
	}
	if skipped := well.with("skip"); len(skipped) > 0 {
		t.Errorf("skipped %v, want none", skipped)
	}
	bed.Observe("on a node set up as documented, %d checks: none fails, and one warns of identity", len(well.Findings))

	c.Vault.Nodes[0].Seal()
	sealed := await("Vault sealed", 3, "vault-health", "node")
	bed.Observe("with Vault sealed, vault-health fails, and the node is not ready; %d kinds of checks are skipped because of it", len(sealed.with("skip")))
	c.Vault.Nodes[0].Unseal()
	c.Vault.AwaitActive()
	await("nothing wrong after unsealing", 0)

	token := c.Vault.NewToken()
	c.ConfigureToken(token)
	bed.Await(30*time.Second, "the new token to be rendered", node.Rendered(token.ID))
	await("nothing wrong with another token", 0)
	c.Vault.Revoke(token)
	await("the token revoked", 3, "token", "node")
	bed.Observe("with the token revoked, token fails, and the node is not ready")
}
