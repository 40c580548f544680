// SPDX-License-Identifier: Apache-2.0

package vaulttest_test

import (
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

func TestLookUpAnother(t *testing.T) {
	s := vaulttest.Start(t)
	root := newCaller(t, s, s.RootToken())
	auth := root.want(200, "POST", "auth/token/create-orphan", fields{"policies": "kms", "period": "1h", "display_name": "trousseau"}).Auth
	id, accessor := auth["client_token"], auth["accessor"]
	for path, body := range map[string]fields{
		"auth/token/lookup":          {"token": id},
		"auth/token/lookup-accessor": {"accessor": accessor},
	} {
		a := root.want(200, "POST", path, body)
		want := id
		if path == "auth/token/lookup-accessor" {
			want = ""
		}
		for field, want := range map[string]any{
			"id": want, "accessor": accessor, "orphan": true, "period": 3600.0,
			"path": "auth/token/create-orphan", "display_name": "token-trousseau",
		} {
			if got := a.Data[field]; got != want {
				t.Errorf("%s: %s: got %v, want %v", path, field, got, want)
			}
		}
	}
	if got := root.want(200, "POST", "auth/token/lookup", nil).Data["id"]; got != s.RootToken() {
		t.Error("without a token: want the caller's own")
	}
	root.want(400, "POST", "auth/token/lookup-accessor", nil, "1 error occurred:\n\t* missing accessor\n\n")

	s.Advance(time.Hour)
	root.want(403, "POST", "auth/token/lookup", fields{"token": id}, "bad token")
	root.want(400, "POST", "auth/token/lookup-accessor", fields{"accessor": accessor}, "1 error occurred:\n\t* invalid accessor\n\n")
	root.want(400, "POST", "auth/token/lookup-accessor", fields{"accessor": "none"}, "1 error occurred:\n\t* invalid accessor\n\n")
	self := newCaller(t, s, s.CreateToken(vaulttest.TokenOptions{}).ID)
	self.want(403, "POST", "auth/token/lookup", fields{"token": self.token}, denied)
}
