// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// An operator lists three addresses, and only the third is right: nothing answers at
// the first, and the second leads to another Vault, which has a key of the same name
// but does not know the token. Trousseau uses the third, says what is wrong with the
// others, and does not turn to them when the third is away for some seconds. Then the
// first works again. Two trousseaus run at the same time: for one, the first address
// refuses connections; for the other, it accepts them and never answers. Shortened:
// Trousseau probes every second instead of every thirty.
func TestThreeAddresses(t *testing.T) {
	bed := testbed.New(t, &report, "12 three addresses")
	right, other := bed.StartVault(testbed.VaultOptions{}), bed.StartVault(testbed.VaultOptions{Name: "other"})
	for _, v := range []*testbed.Vault{right, other} {
		v.CLI("secrets", "enable", "transit")
		v.CLI("write", "-f", "transit/keys/"+testbed.Key)
	}
	// So that its key_id begins with another version.
	other.CLI("write", "-f", "transit/keys/"+testbed.Key+"/rotate")
	right.CLI("policy", "write", "trousseau", bed.Write("policy.hcl", bed.Documented("policy.hcl")))
	token := right.NewToken()
	third := bed.StartProxy(right.Addresses()...)

	nodes := []*threeAddresses{
		newThreeAddresses(t, bed, "refused", right, (*testbed.Proxy).Refuse),
		newThreeAddresses(t, bed, "silent", right, (*testbed.Proxy).Drop),
	}
	for _, n := range nodes {
		n.configure(token, n.first.Addr, other.Nodes[0].Addr, third.Addr)
		n.trousseau.Start()
	}
	for _, n := range nodes {
		began := time.Now()
		n.trousseau.AwaitReady()
		bed.Observe("first address %s: usable after %s", n.name, since(began))
		n.mustUse(0, 0, 1)
		n.startLoad()
	}
	for _, n := range nodes {
		n.load.awaitMore(100)
		n.mustHaveWarned(n.addresses[0], n.addresses[1])
	}

	vault := right.Nodes[0]
	for _, blip := range []struct {
		name       string
		begin, end func()
	}{
		{"refuses connections", third.Refuse, third.Pass},
		{"never answers", third.Drop, third.Pass},
		{"is sealed", vault.Seal, vault.Unseal},
	} {
		blip.begin()
		for _, n := range nodes {
			bed.Await(30*time.Second, n.name+": /readyz and the metric to report degraded", degraded(n.trousseau))
		}
		blip.end()
		ended := time.Now()
		for _, n := range nodes {
			n.trousseau.AwaitReady()
			bed.Observe("third address %s for some seconds, first address %s: usable again after %s", blip.name, n.name, since(ended))
		}
		for _, n := range nodes {
			n.mustServe()
			n.mustUse(0, 0, 1)
		}
	}

	for _, n := range nodes {
		n.first.Pass()
	}
	for _, n := range nodes {
		bed.Await(time.Minute, n.name+": the first address to be usable", n.usable(0, 1))
		n.mustServe()
		n.mustUse(1, 0, 1)
	}
}

// threeAddresses is one trousseau whose config.yaml lists three addresses.
type threeAddresses struct {
	t         *testing.T
	bed       *testbed.Bed
	name      string // of what the first address does
	first     *testbed.Proxy
	dir       string
	trousseau *testbed.Trousseau
	addresses []string // URLs

	load, statuses *calls
	keyID          string
}

// newThreeAddresses prepares a trousseau. Its first address leads to a Vault, but a
// fault of the network prevents that.
func newThreeAddresses(t *testing.T, bed *testbed.Bed, name string, v *testbed.Vault, fault func(*testbed.Proxy)) *threeAddresses {
	t.Helper()
	n := &threeAddresses{t: t, bed: bed, name: name, first: bed.StartProxy(v.Addresses()...), dir: filepath.Join(bed.Dir, name)}
	fault(n.first)
	n.trousseau = bed.NewTrousseau("trousseau-"+name, filepath.Join(n.dir, "config.yaml"), filepath.Join(n.dir, "kms.sock"), "--probe-interval=1s")
	return n
}

// configure writes config.yaml with these addresses (host:port).
func (n *threeAddresses) configure(token testbed.Token, addrs ...string) {
	n.t.Helper()
	for _, addr := range addrs {
		n.addresses = append(n.addresses, "https://"+addr)
	}
	n.bed.Write(filepath.Join(n.dir, "config.yaml"), fmt.Sprintf("provider: vault\nvault:\n  keynames: [%s]\n  address: %s\n  addresses: [%s]\n  vaultCACert: %s\n  token: %s\n",
		testbed.Key, n.addresses[0], strings.Join(n.addresses[1:], ", "), n.bed.CAFile(), token.ID))
}

// startLoad makes round trips, which may fail during a blip, and calls of Status,
// which may not: a blip is shorter than the grace.
func (n *threeAddresses) startLoad() {
	n.t.Helper()
	n.load = startCalls(n.t, n.bed, 2, 50*time.Millisecond, 2*rpcDeadline, func(ctx context.Context, _ int) error {
		return n.trousseau.RoundTrip(ctx)
	})
	n.keyID = n.trousseau.KeyID()
	if want := "transit/" + testbed.Key + "/v1@"; !strings.HasPrefix(n.keyID, want) {
		n.t.Errorf("%s: key_id %s, want the right Vault's, which begins with %s", n.name, n.keyID, want)
	}
	n.statuses = startCalls(n.t, n.bed, 1, 100*time.Millisecond, rpcDeadline, func(ctx context.Context, _ int) error {
		status, err := n.trousseau.KMS.Status(ctx)
		if err == nil && (status.Healthz != "ok" || status.KeyID != n.keyID) {
			err = fmt.Errorf("it says %q and key_id %s, want ok and %s", status.Healthz, status.KeyID, n.keyID)
		}
		return err
	})
}

// usable is a condition for [testbed.Bed.Await]: the metric of an address has the
// value.
func (n *threeAddresses) usable(address int, want float64) func(context.Context) error {
	return n.trousseau.MetricIs(want, "trousseau_vault_node_usable", "address", n.addresses[address])
}

// mustUse waits until the metric of each address has the value.
func (n *threeAddresses) mustUse(want ...float64) {
	n.t.Helper()
	for i := range n.addresses {
		n.bed.Await(30*time.Second, fmt.Sprintf("%s: the metric of address %d", n.name, i+1), n.usable(i, want[i]))
	}
}

// mustHaveWarned checks that there is exactly one warning about each address.
func (n *threeAddresses) mustHaveWarned(addresses ...string) {
	n.t.Helper()
	for _, address := range addresses {
		var warnings []string
		for line := range strings.Lines(n.trousseau.Log()) {
			var entry struct{ Level string }
			if json.Unmarshal([]byte(line), &entry) == nil && entry.Level == "warn" && strings.Contains(line, address) {
				warnings = append(warnings, line)
			}
		}
		if len(warnings) != 1 {
			n.t.Errorf("%s: %d warnings about %s, want 1:\n%s", n.name, len(warnings), address, strings.Join(warnings, ""))
		}
	}
}

// mustServe checks that from now on no round trip fails, and that Status never has.
func (n *threeAddresses) mustServe() {
	n.t.Helper()
	from := time.Now()
	n.load.awaitMore(100)
	made, failed := 0, 0
	for _, c := range n.load.since(from) {
		if c.began.Before(from) {
			continue
		}
		made++
		if c.err != nil {
			failed++
			n.t.Errorf("%s: a round trip failed after the recovery: %v", n.name, c.err)
		}
	}
	n.bed.Count(made, failed)
	if status := n.statuses.count(time.Time{}); status.Failures > 0 {
		n.t.Errorf("%s: Status: %s; want no failures", n.name, status)
	}
}
