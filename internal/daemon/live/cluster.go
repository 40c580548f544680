// SPDX-License-Identifier: Apache-2.0

package live

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/trousseau-io/trousseau/internal/daemon/batch"
	"github.com/trousseau-io/trousseau/internal/fault"
	"github.com/trousseau-io/trousseau/internal/vault"
)

const (
	// steady is how long an address must have worked again before it is preferred
	// to a later one that works too.
	steady = time.Minute
	// recheck is how often nodes are checked while one is not usable or the first
	// does not serve.
	recheck = 5 * time.Second
)

// cluster is one Vault and one token: its nodes, and which of them serves. Only a
// node that holds the key serves. It is safe for concurrent use.
type cluster struct {
	log   *zap.Logger
	nodes []*node // in the order of the configuration
	// serving is the node that requests go to.
	serving atomic.Pointer[node]
	// choosing orders the changes of the nodes' states and of serving.
	choosing sync.Mutex
}

// node is one address of a cluster.
type node struct {
	*vault.Client
	state atomic.Pointer[nodeState]
	// encrypt and decrypt are where requests wait for calls with a key.
	encrypt, decrypt map[string]*batch.Line
	// unbatched means that Vault, or something before it, takes no batches.
	unbatched atomic.Bool
}

// nodeState is what is known of a node. It is immutable.
type nodeState struct {
	// proven means that the node has held the key, so what it says of the key and
	// of the token counts.
	proven bool
	// trouble is why the node cannot be used; nil if it can.
	trouble error
	// since is when trouble last began or ended.
	since time.Time
}

// errNotProven is the trouble of a node that has not been asked yet.
var errNotProven error = fault.Errorf(fault.Unavailable, "not proven yet")

// newCluster returns a cluster none of whose nodes is proven. The one that served
// before, if it is among them, is asked first.
func (k *KEK) newCluster(clients []*vault.Client, keys []string, before *cluster) *cluster {
	c := &cluster{log: k.log}
	for _, client := range clients {
		n := &node{Client: client, encrypt: make(map[string]*batch.Line), decrypt: make(map[string]*batch.Line)}
		refused := func(err error) {
			if !n.unbatched.Swap(true) {
				k.log.Warn("Vault takes no batches; requests go one by one", zap.String("vault", n.Address()), zap.Error(err))
			}
		}
		for _, key := range keys {
			n.encrypt[key], n.decrypt[key] = k.queue.Encrypt(client, key, refused), k.queue.Decrypt(client, key, refused)
		}
		n.state.Store(&nodeState{trouble: errNotProven, since: time.Now()})
		c.nodes = append(c.nodes, n)
		if before != nil && client.Address() == before.serving.Load().Address() {
			c.serving.Store(n)
		}
	}
	c.serving.CompareAndSwap(nil, c.nodes[0])
	return c
}

func (n *node) usable() bool { return n.state.Load().trouble == nil }

// record notes how a call that tells whether n can be used has ended.
func (c *cluster) record(n *node, err error) {
	before := c.change(n, err)
	if len(c.nodes) == 1 {
		return // the health of the KEK says the same
	}
	switch address := zap.String("vault", n.Address()); {
	case err == nil && before != nil && !errors.Is(before, errNotProven):
		c.log.Info("Vault node usable again", address)
	case err != nil && (before == nil || errors.Is(before, errNotProven)):
		c.log.Warn("Vault node unusable", address, zap.String("class", string(fault.ClassOf(err))), zap.Error(err))
	}
}

// recordCheck is record for a check of n. A rate limit does not count against it:
// moving on would bypass the limit.
func (c *cluster) recordCheck(n *node, err error) {
	if fault.ClassOf(err) != fault.Throttled {
		c.record(n, err)
	}
}

// change changes n's trouble, and the node that serves if need be. It returns the
// trouble before.
func (c *cluster) change(n *node, err error) (before error) {
	c.choosing.Lock()
	defer c.choosing.Unlock()
	old := n.state.Load()
	next := &nodeState{proven: old.proven || err == nil, trouble: err, since: old.since}
	if (err == nil) != (old.trouble == nil) {
		next.since = time.Now()
	}
	n.state.Store(next)
	serving := c.serving.Load()
	switch {
	case err == nil && !serving.usable():
		c.serving.Store(n)
	case err != nil && n == serving:
		c.serving.Store(c.successor(n))
	}
	// A node that contradicts one that works is another Vault's.
	if class := fault.ClassOf(err); (class == fault.Denied || class == fault.KeyLost) && c.serving.Load().usable() {
		n.state.Store(&nodeState{trouble: err, since: next.since})
	}
	return old.trouble
}

// successor returns the first node that is usable or, if none is, the next one
// that has been proven.
func (c *cluster) successor(of *node) *node {
	at := 0
	for i, n := range c.nodes {
		if n.usable() {
			return n
		}
		if n == of {
			at = i
		}
	}
	for i := range c.nodes {
		if n := c.nodes[(at+1+i)%len(c.nodes)]; n.state.Load().proven {
			return n
		}
	}
	return of
}

// prefer turns to an earlier address that has worked for a while.
func (c *cluster) prefer() {
	c.choosing.Lock()
	defer c.choosing.Unlock()
	for _, n := range c.nodes {
		if n == c.serving.Load() {
			return
		}
		if n.usable() && time.Since(n.state.Load().since) >= steady {
			c.serving.Store(n)
			c.log.Info("Vault node preferred again", zap.String("vault", n.Address()))
			return
		}
	}
}

// rest returns the usable nodes other than n.
func (c *cluster) rest(n *node) (rest []*node) {
	for _, other := range c.nodes {
		if other != n && other.usable() {
			rest = append(rest, other)
		}
	}
	return rest
}

// settled reports whether every node is usable and the first one serves.
func (c *cluster) settled() bool {
	return c.serving.Load() == c.nodes[0] && len(c.rest(nil)) == len(c.nodes)
}

// idle returns the nodes that do not serve.
func (c *cluster) idle() []*node {
	serving := c.serving.Load()
	return slices.DeleteFunc(slices.Clone(c.nodes), func(n *node) bool { return n == serving })
}

// another returns a usable node other than n, n itself if there is none.
func (c *cluster) another(n *node) *node {
	if serving := c.serving.Load(); serving != n {
		return serving
	}
	if rest := c.rest(n); len(rest) > 0 {
		return rest[0]
	}
	return n
}

// verdict is what the troubles of all nodes together mean. Only nodes that have
// been proven count. It is a lost key or a denial if one of them says so and none
// can be used, and a lag only if all say so.
func (c *cluster) verdict() (err error) {
	for _, n := range c.nodes {
		if s := n.state.Load(); s.proven {
			err = weightier(err, s.trouble)
		}
	}
	return err
}

// weightier returns the error that says more of the key or the token; of two that
// say as much, a.
func weightier(a, b error) error {
	if weight(b) > weight(a) {
		return b
	}
	return a
}

// weight is how much an error says of the key or the token.
func weight(err error) int {
	switch class := fault.ClassOf(err); {
	case err == nil:
		return 0
	case class == fault.VersionTooNew:
		return 1
	case class.Transient():
		return 2
	case class == fault.Denied:
		return 3
	}
	return 4
}

// any calls f for one node after the other, the one that serves first, until one
// call succeeds. Each call may take limit. A single node is tried twice, unless it
// refuses or is too slow.
func (c *cluster) any(ctx context.Context, limit time.Duration, f func(context.Context, *node) error) (err error) {
	serving := c.serving.Load()
	order := append([]*node{serving}, c.idle()...)
	if len(order) == 1 {
		order = append(order, serving)
	}
	for _, n := range order {
		bounded, cancel := context.WithTimeout(ctx, limit)
		failure := f(bounded, n)
		cancel()
		if failure == nil {
			return nil
		}
		err = weightier(err, failure)
		class := fault.ClassOf(failure)
		if ctx.Err() != nil || len(c.nodes) == 1 && (!class.Transient() || class == fault.Timeout) {
			return err
		}
	}
	return err
}
