// SPDX-License-Identifier: Apache-2.0

package vaulttest_test

import (
	"encoding/json"
	"testing"

	vault "github.com/hashicorp/vault-client-go"
	"github.com/hashicorp/vault-client-go/schema"

	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

// TestVaultClient lets HashiCorp's own client read the fake's answers.
func TestVaultClient(t *testing.T) {
	s := vaulttest.Start(t, vaulttest.Options{TLS: true, Now: newClock().Now})
	s.Mount("", "team/transit").CreateKey("kek")
	token := s.CreateToken(vaulttest.TokenOptions{Rules: vaulttest.TransitPolicy("team/transit", "kek")})
	client, err := vault.New(vault.WithAddress(s.URL()), vault.WithHTTPClient(newClient(t, s)))
	if err != nil {
		t.Fatal(err)
	}
	if err := client.SetToken(token.ID); err != nil {
		t.Fatal(err)
	}
	ctx, mount := t.Context(), vault.WithMountPath("team/transit")

	encrypted, err := client.Secrets.TransitEncrypt(ctx, "kek", schema.TransitEncryptRequest{
		Plaintext: b64("seed"), AssociatedData: b64("aad"), KeyVersion: 1,
	}, mount)
	if err != nil {
		t.Fatal(err)
	}
	if got := encrypted.Data["key_version"]; got != json.Number("1") {
		t.Errorf("key_version: got %v", got)
	}
	ciphertext, _ := encrypted.Data["ciphertext"].(string)
	decrypted, err := client.Secrets.TransitDecrypt(ctx, "kek", schema.TransitDecryptRequest{
		Ciphertext: ciphertext, AssociatedData: b64("aad"),
	}, mount)
	if err != nil {
		t.Fatal(err)
	}
	if got := decrypted.Data["plaintext"]; got != b64("seed") {
		t.Errorf("plaintext: got %v", got)
	}
	key, err := client.Secrets.TransitReadKey(ctx, "kek", mount)
	if err != nil {
		t.Fatal(err)
	}
	if got := key.Data["latest_version"]; got != json.Number("1") {
		t.Errorf("latest_version: got %v", got)
	}
	self, err := client.Auth.TokenLookUpSelf(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if self.Data["accessor"] != token.Accessor || self.Data["ttl"] != json.Number("2764800") {
		t.Errorf("lookup-self: got accessor %v, ttl %v", self.Data["accessor"], self.Data["ttl"])
	}
	renewed, err := client.Auth.TokenRenewSelf(ctx, schema.TokenRenewSelfRequest{Increment: "1h"})
	if err != nil {
		t.Fatal(err)
	}
	if renewed.Auth == nil || renewed.Auth.LeaseDuration != 3600 || !renewed.Auth.Renewable {
		t.Errorf("renew-self: got %+v", renewed.Auth)
	}
	if _, err := client.Secrets.TransitReadKey(ctx, "kek"); !vault.IsErrorStatus(err, 403) {
		t.Errorf("key of another mount: got %v, want 403", err)
	}
	health, err := client.System.ReadHealthStatus(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if health.Data["sealed"] != false || health.Data["version"] != vaulttest.Version {
		t.Errorf("health: got %v", health.Data)
	}
}

// TestVaultClientOfAnAdministrator lets HashiCorp's own client prepare the fake.
func TestVaultClientOfAnAdministrator(t *testing.T) {
	s := vaulttest.Start(t)
	client, err := vault.New(vault.WithAddress(s.URL()))
	if err != nil {
		t.Fatal(err)
	}
	if err := client.SetToken(s.RootToken()); err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	if _, err := client.System.MountsEnableSecretsEngine(ctx, "kms", schema.MountsEnableSecretsEngineRequest{Type: "transit"}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.System.AuthEnableMethod(ctx, "k8s", schema.AuthEnableMethodRequest{Type: "kubernetes"}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.System.PoliciesWriteAclPolicy(ctx, "kms", schema.PoliciesWriteAclPolicyRequest{Policy: `path "kms/keys/*" { capabilities = ["read"] }`}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Auth.KubernetesWriteAuthRole(ctx, "kms", schema.KubernetesWriteAuthRoleRequest{
		BoundServiceAccountNames: []string{"trousseau"}, BoundServiceAccountNamespaces: []string{"kube-system"}, TokenPolicies: []string{"kms"},
	}, vault.WithMountPath("k8s")); err != nil {
		t.Fatal(err)
	}
	policy, err := client.System.PoliciesReadAclPolicy(ctx, "kms")
	if err != nil || policy.Data.Name != "kms" || policy.Data.Policy == "" {
		t.Errorf("policy: got %+v %v", policy, err)
	}
	engines, err := client.System.MountsListSecretsEngines(ctx)
	if err != nil || engines.Data["kms/"] == nil {
		t.Errorf("engines: got %+v %v", engines, err)
	}
	role, err := client.Auth.KubernetesReadAuthRole(ctx, "kms", vault.WithMountPath("k8s"))
	if err != nil || role.Data["token_ttl"] != json.Number("0") {
		t.Errorf("role: got %+v %v", role, err)
	}
	token, err := client.Auth.TokenCreate(ctx, schema.TokenCreateRequest{Policies: []string{"kms"}})
	if err != nil {
		t.Fatal(err)
	}
	found, err := client.Auth.TokenLookUpAccessor(ctx, schema.TokenLookUpAccessorRequest{Accessor: token.Auth.Accessor})
	if err != nil || found.Data["accessor"] != token.Auth.Accessor {
		t.Errorf("lookup-accessor: got %+v %v", found, err)
	}
}
