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

// store is the state shared by the nodes of one cluster.
type store struct {
	clock     func() time.Time
	ahead     atomic.Int64 // nanoseconds by which Advance has moved the clock
	clientCA  func() (*authority, error)
	rootToken string
	secrets   secrets
	builtIn   builtIn

	// mu guards the following fields.
	mu         sync.Mutex
	namespaces map[string]bool       // path without leading or trailing slash → exists; "" is the root
	mounts     map[string]*mount     // joined namespace and path, without leading or trailing slash
	auths      map[string]*authMount // joined namespace, "auth/" and path, without leading or trailing slash
	policies   map[string]policy     // by name, in all namespaces
	tokens     map[string]*token     // id → token
	minted     int                   // number of tokens created
}

// now returns the cluster's time.
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

// namespace creates a namespace and its parents if they are missing, and returns its path without leading or
// trailing slash.
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

// Mount mounts a transit engine in a namespace ("" is the root), creates the namespace if it is missing, and
// returns the engine. The path may contain slashes. If the transit engine already exists, it is returned
// unchanged.
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

// Unmount removes the engine at this path with all its data.
func (s *Server) Unmount(namespace, path string) {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	delete(s.store.mounts, join(namespace, path))
}

func join(namespace, path string) string {
	return strings.Trim(strings.Trim(namespace, "/")+"/"+strings.Trim(path, "/"), "/")
}

// Advance moves the cluster's clock forward by d, in addition to Options.Now, so that leases expire. The clients'
// clocks do not change. In a testing/synctest bubble, time.Sleep advances both.
func (s *Server) Advance(d time.Duration) { s.store.ahead.Add(int64(d)) }

// route is the target of a request, found from method and path alone.
type route struct {
	op        string
	method    string // as Vault sees it: GET, POST (also for PUT), DELETE, LIST
	namespace string // the longest existing prefix of the path
	path      string // below the namespace, without /v1/
	mount     string // key into store.mounts; empty for sys/, auth/ and unknown paths
	auth      string // key into store.auths
	name      string // of the transit key, KV secret, policy or role; for sys/mounts/ and sys/auth/ the path
}

// full returns the path relative to the root namespace.
func (rt route) full() string { return join(rt.namespace, rt.path) }

// route resolves a path. The header and the path may both name namespaces, and the slashes of a mount path may be
// escaped; net/http has already unescaped urlPath.
func (st *store) route(method, header, urlPath string) route {
	st.mu.Lock()
	defer st.mu.Unlock()
	if len(st.namespaces) == 1 {
		// Only Vault Enterprise has namespaces. The community edition ignores the header.
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
		// For an unknown mount use the end of the path, so that the request is counted under its name.
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

// prefixes returns the proper prefixes of a path that end before a slash, longest first.
func prefixes(path string) []string {
	var list []string
	for i := len(path) - 1; i > 0; i-- {
		if path[i] == '/' {
			list = append(list, path[:i])
		}
	}
	return list
}

// newUUID returns a random UUID in Vault's format.
func newUUID() string {
	var b [16]byte
	// crypto/rand.Read never fails.
	_, _ = rand.Read(b[:])
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:])
}
