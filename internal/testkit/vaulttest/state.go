// SPDX-License-Identifier: Apache-2.0

package vaulttest

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// store is the state the nodes of one cluster share.
type store struct {
	clock     func() time.Time
	ahead     atomic.Int64 // nanoseconds by which Advance has moved the clock
	clientCA  func() (*authority, error)
	rootToken string
	secrets   secrets
	builtIn   builtIn

	// mu guards what follows.
	mu         sync.Mutex
	namespaces map[string]bool       // path without slashes at the ends → exists; "" is the root
	mounts     map[string]*mount     // namespace and path joined, without slashes at the ends
	auths      map[string]*authMount // namespace, "auth/" and path joined, without slashes at the ends
	policies   map[string]policy     // by name, whatever the namespace
	tokens     map[string]*token     // id → token
	minted     int                   // how many tokens there have been
}

// now is the cluster's time.
func (st *store) now() time.Time { return st.clock().Add(time.Duration(st.ahead.Load())) }

// mount is one secrets engine.
type mount struct {
	mounted
	keys   map[string]*key     // transit: name → key
	values map[string][]kvItem // kv: path → versions, oldest first
}

func newStore(now func() time.Time) *store {
	if now == nil {
		now = time.Now
	}
	st := &store{
		clock:      now,
		clientCA:   sync.OnceValues(func() (*authority, error) { return newAuthority("vaulttest client CA") }),
		namespaces: map[string]bool{"": true},
		mounts:     map[string]*mount{},
		auths:      map[string]*authMount{},
		policies:   map[string]policy{"default": newPolicy(defaultPolicy())},
		tokens:     map[string]*token{},
	}
	st.mounts["transit"] = newMount(kindTransit, "", "", "transit")
	st.mounts["secret"] = newMount(kindKV, "2", "", "secret")
	st.builtIn = newBuiltIn()
	root := &token{
		id: "hvs." + rand.Text(), accessor: newAccessor(), kind: "service", policies: []string{"root"},
		displayName: "root", path: "auth/token/root", created: st.now(),
	}
	st.tokens[root.id] = root
	st.rootToken = root.id
	st.secrets.add(root.id)
	return st
}

func newMount(kind, version, namespace, path string) *mount {
	m := &mount{mounted: newMounted(kind, namespace, path), keys: map[string]*key{}, values: map[string][]kvItem{}}
	m.version = version
	return m
}

// namespace makes sure that a namespace and those above it exist, and returns its path without slashes at the ends.
func (st *store) namespace(path string) string {
	path = strings.Trim(path, "/")
	for i := range path {
		if path[i] == '/' {
			st.namespaces[path[:i]] = true
		}
	}
	st.namespaces[path] = true
	return path
}

// Mount enables a transit engine in a namespace ("" is the root), creating the namespace if need be, and returns it.
// The path may contain slashes. A transit engine that is already there is returned as it is.
func (s *Server) Mount(namespace, path string) *Mount {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	namespace = s.store.namespace(namespace)
	at := join(namespace, path)
	switch m := s.store.mounts[at]; {
	case m == nil:
		s.store.mounts[at] = newMount(kindTransit, "", namespace, path)
	case m.kind != kindTransit:
		panic(fmt.Sprintf("vaulttest: %s is a %s mount", at, m.kind))
	}
	return &Mount{store: s.store, at: at}
}

// Unmount disables the engine at this path with all that is in it.
func (s *Server) Unmount(namespace, path string) {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	delete(s.store.mounts, join(namespace, path))
}

func join(namespace, path string) string {
	return strings.Trim(strings.Trim(namespace, "/")+"/"+strings.Trim(path, "/"), "/")
}

// Advance moves the clock of the whole cluster forward by d, on top of whatever Options.Now says: what would have
// expired by then has. Clients do not notice that their own clock is behind. In a testing/synctest bubble time.Sleep
// does the same for both sides.
func (s *Server) Advance(d time.Duration) { s.store.ahead.Add(int64(d)) }

// route is where a request goes, found from method and path alone.
type route struct {
	op        string
	method    string // as Vault sees it: GET, POST (also for PUT), DELETE, LIST
	namespace string // the longest one that exists and leads to the path
	path      string // below the namespace, without /v1/
	mount     string // key into store.mounts; empty for sys/, auth/ and what leads nowhere
	auth      string // key into store.auths
	name      string // of the transit key, KV secret, policy or role; for sys/mounts/ and sys/auth/ the path
}

// full is the path from the root namespace.
func (rt route) full() string { return join(rt.namespace, rt.path) }

// route finds the way. Both the header and the path may name namespaces, and a mount path with slashes may come
// escaped; urlPath has been unescaped by net/http.
func (st *store) route(method, header, urlPath string) route {
	st.mu.Lock()
	defer st.mu.Unlock()
	if len(st.namespaces) == 1 {
		// Namespaces belong to Vault Enterprise. The community edition does not look at the header.
		header = ""
	}
	full := join(header, strings.TrimPrefix(urlPath, "/v1/"))
	rt := route{op: OpOther, method: method, path: full}
	if method == http.MethodPut {
		rt.method = http.MethodPost
	}
	for _, prefix := range prefixes(full) {
		if st.namespaces[prefix] {
			rt.namespace, rt.path = prefix, full[len(prefix)+1:]
			break
		}
	}
	if strings.HasPrefix(rt.path, "sys/") || strings.HasPrefix(rt.path, "auth/") {
		rt.op, rt.name = systemOp(rt.method, rt.path)
		for _, prefix := range prefixes(full) {
			if st.auths[prefix] != nil {
				rt.auth = prefix
				break
			}
		}
		// Where there is no method the end of the path is enough, so that the request is counted under its name.
		if rest, ok := strings.CutSuffix(full, "/login"); ok && rt.op == OpOther && (rt.auth == rest || rt.auth == "") {
			rt.op = OpLogin
		}
		if m := st.auths[rt.auth]; m != nil && rt.op == OpOther && m.kind == kindKubernetes {
			rt.op, rt.name = kubernetesOp(rt.method, full[len(rt.auth)+1:])
		}
		return rt
	}
	rest := rt.path
	for _, prefix := range prefixes(full) {
		if st.mounts[prefix] != nil && len(prefix) > len(rt.namespace) {
			rt.mount, rest = prefix, full[len(prefix)+1:]
			break
		}
	}
	switch m := st.mounts[rt.mount]; {
	case m == nil || m.kind == kindTransit:
		rt.op, rt.name = transitOp(rt.method, rest, rt.mount != "")
	case m.kind == kindKV && m.version == "2":
		rt.op, rt.name = kvOp(rt.method, rest)
	}
	return rt
}

// prefixes are the proper prefixes of a path that end before a slash, longest first.
func prefixes(path string) []string {
	var list []string
	for i := len(path) - 1; i > 0; i-- {
		if path[i] == '/' {
			list = append(list, path[:i])
		}
	}
	return list
}

// newUUID is a random UUID as Vault prints them.
func newUUID() string {
	var b [16]byte
	// crypto/rand.Read never fails.
	_, _ = rand.Read(b[:])
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:])
}
