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

// login is a trousseau with its own credential.
type login struct {
	t         *testing.T
	c         *testbed.Cluster
	name      string
	dir       string
	trousseau *testbed.Trousseau
	calls     *calls

	// mount is the auth mount used only by this trousseau; "" if Trousseau has no
	// token of its own.
	mount string
	// role changes the settings of tokens issued at login.
	role func(tokens ...string)
	// supply replaces the credential.
	supply func()

	replaced int           // number of replacements
	supplied time.Time     // time of the last replacement
	slowest  time.Duration // longest time until the new credential was in use
	lease    string        // of the current token
}

// Token settings of roles. A short-lived token can be extended twice.
var (
	longLived  = []string{"token_ttl=1h", "token_max_ttl=24h"}
	shortLived = []string{"token_ttl=6s", "token_max_ttl=14s"}
	// Vault Agent waits for a second before it logs in again.
	shortLivedForAgent = []string{"token_ttl=8s", "token_max_ttl=18s"}
)

// newLogin prepares a trousseau. Configure it and then start it.
func newLogin(t *testing.T, c *testbed.Cluster, name string) *login {
	t.Helper()
	short := strings.ToLower(strings.NewReplacer(" ", "-", "'", "").Replace(name))
	l := &login{t: t, c: c, name: name, dir: filepath.Join(c.Dir, short)}
	l.trousseau = c.NewTrousseau("trousseau-"+short, filepath.Join(l.dir, "config.yaml"), filepath.Join(l.dir, "kms.sock"))
	return l
}

// configure writes config.yaml with a credential, given as lines.
func (l *login) configure(credential ...string) {
	l.t.Helper()
	l.configureAt("https://"+l.c.Proxy.Addr, append(credential, "vaultCACert: "+l.c.CAFile())...)
}

// configureAt is configure with another address and without a CA.
func (l *login) configureAt(address string, lines ...string) {
	l.t.Helper()
	lines = append([]string{"keynames: [" + testbed.Key + "]", "address: " + address}, lines...)
	l.c.Replace(filepath.Join(l.dir, "config.yaml"), "provider: vault\nvault:\n  "+strings.Join(lines, "\n  ")+"\n")
}

// serve waits until trousseau is healthy and starts a load.
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

// onlyLease waits until exactly one token from a login is live and differs from the
// previous one, and returns its lease.
func (l *login) onlyLease(other string) string {
	l.t.Helper()
	var alive []string
	l.c.Await(30*time.Second, l.name+": one token to be left", func(ctx context.Context) (err error) {
		alive, err = l.c.Vault.LeasesFrom(ctx, l.mount)
		if err == nil && (len(alive) != 1 || alive[0] == other) {
			err = fmt.Errorf("got %d live tokens, want only a new one", len(alive))
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

// mustHaveReplaced waits until the new credential is in use and the old token is
// revoked.
func (l *login) mustHaveReplaced() {
	l.t.Helper()
	l.c.Await(30*time.Second, l.name+": the new credential to be in use", l.generation(1+l.replaced))
	// The old token was valid for an hour: only Trousseau can have revoked it.
	l.lease = l.onlyLease(l.lease)
	adopted := l.trousseau.MustMetric("trousseau_config_last_reload_success_timestamp_seconds")
	l.slowest = max(l.slowest, time.UnixMilli(int64(adopted*1000)).Sub(l.supplied))
}

// mustBeKeptAlive waits until two short-lived tokens have been renewed and then
// replaced at the end of their life.
func (l *login) mustBeKeptAlive() {
	l.t.Helper()
	l.mustLogInAgain(2)
	if renewals := l.asked("renew_self"); renewals < 2 {
		l.t.Errorf("%s: %v renewals of two tokens that can be extended twice each, want one of each at least", l.name, renewals)
	}
}

// mustLogInAgain waits for n repeated logins.
func (l *login) mustLogInAgain(n int) {
	l.t.Helper()
	l.c.Await(time.Minute, l.name+": tokens to expire", func(context.Context) error {
		if got := strings.Count(l.trousseau.Log(), `"logged in to Vault again"`); got < n {
			return fmt.Errorf("it has logged in again %d times, want %d", got, n)
		}
		return nil
	})
}

// end stops the load and trousseau, and checks what is left. A round trip may fail
// if Vault did not answer direct calls at that time.
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
	l.c.Observe("%s: round trips: %s; %v logins, %v renewals, %v revocations, %v denied and retried%s", l.name, count,
		l.asked("login"), l.asked("renew_self"), l.asked("revoke_self"), denied, replaced)
	l.trousseau.Stop()
	if l.mount == "" {
		return
	}
	l.c.Await(3*time.Second, l.name+": all tokens to be revoked", func(ctx context.Context) error {
		// Trousseau tries this for at most one second.
		if l.trousseau.Logged(0, "could not revoke the old token")(ctx) == nil {
			return nil
		}
		alive, err := l.c.Vault.LeasesFrom(ctx, l.mount)
		if err == nil && len(alive) > 0 {
			err = fmt.Errorf("%d live tokens", len(alive))
		}
		return err
	})
}

// requests is the metric that counts calls to Vault.
const requests = "trousseau_vault_requests_total"

// asked returns how often Vault has performed an operation.
func (l *login) asked(operation string) float64 {
	l.t.Helper()
	return l.trousseau.MustMetric(requests, "operation", operation, "code", "ok")
}

// generation is a condition for [testbed.Bed.Await]: the n-th generation is in use.
func (l *login) generation(n int) func(context.Context) error {
	return func(ctx context.Context) error {
		got, _, err := l.trousseau.Metric(ctx, "trousseau_generation")
		if err == nil && got < float64(n) {
			err = fmt.Errorf("%s is at generation %v, want %d", l.trousseau.Name, got, n)
		}
		return err
	}
}
