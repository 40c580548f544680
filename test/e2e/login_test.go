// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// login is a trousseau with a credential of its own.
type login struct {
	t         *testing.T
	c         *testbed.Cluster
	name      string
	dir       string
	trousseau *testbed.Trousseau
	calls     *calls

	// mount is the auth method that nobody else logs in at; "" if Trousseau has
	// no token of its own.
	mount string
	// role changes what tokens logins yield.
	role func(tokens ...string)
	// supply puts another credential where Trousseau finds it.
	supply func()

	replaced int           // how often
	supplied time.Time     // when, the last time
	slowest  time.Duration // from then until it was in use
	lease    string        // of the token that was logged in for
}

// What a role says of its tokens. A short life can be extended twice.
var (
	longLived  = []string{"token_ttl=1h", "token_max_ttl=24h"}
	shortLived = []string{"token_ttl=6s", "token_max_ttl=14s"}
	// Vault Agent waits for a second before it logs in anew.
	shortLivedForAgent = []string{"token_ttl=8s", "token_max_ttl=18s"}
)

// newLogin prepares a trousseau, to be configured and started.
func newLogin(t *testing.T, c *testbed.Cluster, name string) *login {
	t.Helper()
	short := strings.ToLower(strings.NewReplacer(" ", "-", "'", "").Replace(name))
	l := &login{t: t, c: c, name: name, dir: filepath.Join(c.Dir, short)}
	l.trousseau = c.NewTrousseau("trousseau-"+short, filepath.Join(l.dir, "config.yaml"), filepath.Join(l.dir, "kms.sock"))
	return l
}

// configure writes config.yaml with a credential, which is given as lines.
func (l *login) configure(credential ...string) {
	l.t.Helper()
	l.configureAt("https://"+l.c.Proxy.Addr, append(credential, "vaultCACert: "+l.c.CAFile())...)
}

// configureAt is configure for another address and with no CA.
func (l *login) configureAt(address string, lines ...string) {
	l.t.Helper()
	lines = append([]string{"keynames: [" + testbed.Key + "]", "address: " + address}, lines...)
	l.c.Replace(filepath.Join(l.dir, "config.yaml"), "provider: vault\nvault:\n  "+strings.Join(lines, "\n  ")+"\n")
}

// serve waits until the trousseau is healthy and puts a load on it.
func (l *login) serve() {
	l.t.Helper()
	l.trousseau.AwaitReady()
	if id := l.trousseau.KeyID(); !strings.HasPrefix(id, "transit/"+testbed.Key+"/v1@") {
		l.t.Errorf("%s: key_id %s", l.name, id)
	}
	if l.mount != "" {
		l.lease = l.onlyLease("")
	}
	const patience = 6 * time.Second // twice EncryptionConfiguration's timeout: a round trip is two calls
	l.calls = startCalls(l.t, l.c.Bed, 2, 100*time.Millisecond, patience, func(ctx context.Context, _ int) error {
		return l.trousseau.RoundTrip(ctx)
	})
}

// onlyLease waits until only one token that has come from a login lives, and that
// is another one, and returns its lease.
func (l *login) onlyLease(other string) string {
	l.t.Helper()
	var alive []string
	l.c.Await(30*time.Second, l.name+": one token to be left", func(ctx context.Context) (err error) {
		alive, err = l.c.Vault.LeasesFrom(ctx, l.mount)
		if err == nil && (len(alive) != 1 || alive[0] == other) {
			err = fmt.Errorf("%d tokens live, or the old one does", len(alive))
		}
		return err
	})
	return alive[0]
}

// replace supplies another credential.
func (l *login) replace() {
	l.t.Helper()
	l.replaced++
	l.supply()
	l.supplied = time.Now()
}

// mustHaveReplaced waits until the credential supplied last has been logged in
// with, and the token of the one before revoked.
func (l *login) mustHaveReplaced() {
	l.t.Helper()
	l.c.Await(30*time.Second, l.name+": the new credential to be in use", l.generation(1+l.replaced))
	// It was good for an hour: that it is gone is Trousseau's doing.
	l.lease = l.onlyLease(l.lease)
	adopted := l.trousseau.MustMetric("trousseau_config_last_reload_success_timestamp_seconds")
	l.slowest = max(l.slowest, time.UnixMilli(int64(adopted*1000)).Sub(l.supplied))
}

// mustBeKeptAlive waits until two short-lived tokens have been renewed and, at the
// end of their life, replaced.
func (l *login) mustBeKeptAlive() {
	l.t.Helper()
	l.mustLogInAnew(2)
	if renewals := l.asked("renew_self"); renewals < 2 {
		l.t.Errorf("%s: %v renewals of two tokens that can be extended twice each, want one of each at least", l.name, renewals)
	}
}

// mustLogInAnew waits until that has happened n times.
func (l *login) mustLogInAnew(n int) {
	l.t.Helper()
	l.c.Await(time.Minute, l.name+": tokens to be used up", func(context.Context) error {
		if got := strings.Count(l.trousseau.Log(), `"logged in to Vault again"`); got < n {
			return fmt.Errorf("it has logged in anew %d times, want %d", got, n)
		}
		return nil
	})
}

// end stops the load and the trousseau, and looks at what is left. A round trip
// may have failed if Vault did not answer direct calls meanwhile.
func (l *login) end(direct *calls) {
	l.t.Helper()
	l.calls.stop()
	count := l.calls.count(time.Time{})
	l.c.Count(count.Operations, count.Failures)
	for _, made := range l.calls.since(time.Time{}) {
		if made.err != nil && !made.starved(direct.since(made.began)) {
			l.t.Errorf("%s: a round trip failed after %s, of all: %s: %v", l.name, made.took(), count, made.err)
			break
		}
	}
	replaced := ""
	if l.replaced > 0 {
		replaced = fmt.Sprintf("; another one in use within %s", l.slowest.Round(time.Millisecond))
	}
	denied := l.trousseau.MustMetric(requests, "operation", "encrypt", "code", "denied") +
		l.trousseau.MustMetric(requests, "operation", "decrypt", "code", "denied")
	l.c.Observe("%s: round trips: %s; %v logins, %v renewals, %v revocations, %v times denied and made again%s", l.name, count,
		l.asked("login"), l.asked("renew_self"), l.asked("revoke_self"), denied, replaced)
	l.trousseau.Stop()
	if l.mount == "" {
		return
	}
	l.c.Await(3*time.Second, l.name+": no token to be left", func(ctx context.Context) error {
		// Trousseau asks for that for a second at most.
		if l.trousseau.Logged(0, "could not revoke the old token")(ctx) == nil {
			return nil
		}
		alive, err := l.c.Vault.LeasesFrom(ctx, l.mount)
		if err == nil && len(alive) > 0 {
			err = fmt.Errorf("%d live", len(alive))
		}
		return err
	})
}

// requests is the metric that counts calls of Vault.
const requests = "trousseau_vault_requests_total"

// asked is how often Vault has done something.
func (l *login) asked(operation string) float64 {
	l.t.Helper()
	return l.trousseau.MustMetric(requests, "operation", operation, "code", "ok")
}

// generation is met when the n-th has been adopted; see [testbed.Bed.Await].
func (l *login) generation(n int) func(context.Context) error {
	return func(ctx context.Context) error {
		got, _, err := l.trousseau.Metric(ctx, "trousseau_generation")
		if err == nil && got < float64(n) {
			err = fmt.Errorf("%s is at generation %v, want %d", l.trousseau.Name, got, n)
		}
		return err
	}
}
