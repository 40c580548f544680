// SPDX-License-Identifier: Apache-2.0

package vaulttest_test

import (
	"testing"

	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

func TestDefaultRole(t *testing.T) {
	s := vaulttest.Start(t)
	jwt := s.EnableJWT("", "jwt")
	jwt.SetRole("kms", vaulttest.TokenOptions{})
	c, body := newCaller(t, s, ""), fields{"jwt": jwt.NewJWT("kms") + "\n"}
	c.want(400, "POST", "auth/jwt/login", body, "missing role")
	jwt.SetDefaultRole("kms")
	c.want(200, "POST", "auth/jwt/login", body)
}

func TestAcceptedJWT(t *testing.T) {
	s := vaulttest.Start(t)
	kubernetes := s.EnableKubernetes("", "kubernetes")
	kubernetes.SetRole("kms", vaulttest.TokenOptions{})
	kubernetes.SetRole("other", vaulttest.TokenOptions{})
	c := newCaller(t, s, "")
	login := func(status int, role string) {
		t.Helper()
		c.want(status, "POST", "auth/kubernetes/login", fields{"role": role, "jwt": "a.b.c"})
	}
	login(403, "kms")
	kubernetes.Accept("kms", "a.b.c")
	login(200, "kms")
	login(403, "other")
	kubernetes.Accept("other", "a.b.c")
	login(200, "kms")
	login(200, "other")
	kubernetes.Expire("a.b.c")
	login(403, "kms")
	kubernetes.Accept("kms", "a.b.c")
	login(200, "kms")
	kubernetes.Forget("a.b.c")
	login(403, "kms")
}
