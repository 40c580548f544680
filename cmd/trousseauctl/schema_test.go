// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/jsonschema-go/jsonschema"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/trousseau-io/trousseau/internal/ctl/audit"
	"github.com/trousseau-io/trousseau/internal/ctl/conformance"
	"github.com/trousseau-io/trousseau/internal/ctl/doctor"
	"github.com/trousseau-io/trousseau/internal/ctl/finding"
	"github.com/trousseau-io/trousseau/internal/ctl/fleet"
	"github.com/trousseau-io/trousseau/internal/ctl/inventory"
	"github.com/trousseau-io/trousseau/internal/ctl/rotate"
	"github.com/trousseau-io/trousseau/internal/ctl/rotatekey"
)

const schemas = "../../docs/schema"

// contract is what a kind of document promises: the type of its report, and the ids of
// its findings. Programs act on an id, so none is ever renamed or taken away.
type contract struct {
	report any
	ids    []string
}

// contractOf returns what a kind promises. A command that runs for each cluster promises
// the findings of each.
func contractOf(kind string) (contract, bool) {
	one, ofAll := strings.CutSuffix(kind, "OfClusters")
	c, known := contracts[one]
	if ofAll {
		c = contract{report: ofClusters{}, ids: append(slices.Clone(c.ids), "cluster-failed")}
	}
	return c, known
}

// TestSchemas compares docs/schema with what the commands can print.
func TestSchemas(t *testing.T) {
	for _, command := range newRoot().Commands() {
		flag := command.Flags().Lookup("output")
		if flag == nil {
			t.Errorf("%s has no --output", command.CommandPath())
			continue
		}
		out := flag.Value.(*output)
		kinds := []string{out.kind}
		if command.Flags().Lookup("inventory") != nil {
			kinds = append(kinds, out.kind+"OfClusters")
		}
		for _, kind := range kinds {
			sameSchema(t, command.CommandPath(), kind)
		}
	}
}

// TestInventorySchema compares the schema of the file that lists clusters with what is
// read. Unlike a document's, it allows no other fields.
func TestInventorySchema(t *testing.T) {
	s, err := jsonschema.For[struct {
		APIVersion string              `json:"apiVersion"`
		Kind       string              `json:"kind"`
		Clusters   []inventory.Cluster `json:"clusters"`
	}](&jsonschema.ForOptions{TypeSchemas: map[reflect.Type]*jsonschema.Schema{reflect.TypeFor[inventory.Values](): {}}})
	if err != nil {
		t.Fatal(err)
	}
	s.Schema = "https://json-schema.org/draft/2020-12/schema"
	s.Title = "The file for trousseauctl's --inventory"
	for name, value := range map[string]any{"apiVersion": apiVersion, "kind": "Inventory"} {
		s.Properties[name] = &jsonschema.Schema{Const: &value}
	}
	s.Properties["clusters"].Types, s.Properties["clusters"].Type = nil, "array"
	want, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	sameFile(t, "Inventory", append(want, '\n'))
}

func sameSchema(t *testing.T, command, kind string) {
	t.Helper()
	if _, known := contractOf(kind); !known {
		t.Errorf("%s: contracts has no kind %q", command, kind)
		return
	}
	s, err := schema(kind)
	if err != nil {
		t.Fatal(err)
	}
	want, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	// A later version may add fields.
	sameFile(t, kind, append(closed.ReplaceAll(want, nil), '\n'))
}

func sameFile(t *testing.T, kind string, want []byte) {
	t.Helper()
	file := filepath.Join(schemas, kind+".json")
	if *update {
		if err := os.WriteFile(file, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s differs from what trousseauctl has (%v); run make docs", file, err)
	}
}

// closed is what the schema of a struct says of other fields.
var closed = regexp.MustCompile(`,\s*"additionalProperties": false`)

// schema returns the schema of a kind. It allows no other fields: a story must not
// print what is not documented.
func schema(kind string) (*jsonschema.Schema, error) {
	promised, _ := contractOf(kind)
	s, err := jsonschema.For[document](nil)
	if err != nil {
		return nil, err
	}
	s.Schema = "https://json-schema.org/draft/2020-12/schema"
	s.Title = "What trousseauctl prints as " + kind
	constant := func(value any) *jsonschema.Schema { return &jsonschema.Schema{Const: &value} }
	s.Properties["apiVersion"] = constant(apiVersion)
	s.Properties["kind"] = constant(kind)
	s.Properties["verdict"] = &jsonschema.Schema{Enum: []any{verdictOK, verdictFindings, verdictFailed}}
	found := s.Properties["findings"].Items
	s.Properties["findings"].Type, s.Properties["findings"].Types = "array", nil
	found.Properties["severity"] = &jsonschema.Schema{Enum: []any{finding.Error, finding.Warning}}
	found.Properties["id"] = &jsonschema.Schema{}
	if len(promised.ids) == 0 {
		s.Properties["findings"].MaxItems = new(int)
	}
	for _, id := range promised.ids {
		found.Properties["id"].Enum = append(found.Properties["id"].Enum, id)
	}
	delete(s.Properties, "report")
	s.PropertyOrder = slices.DeleteFunc(s.PropertyOrder, func(name string) bool { return name == "report" })
	if report := promised.report; report != nil {
		s.Properties["report"], err = jsonschema.ForType(reflect.TypeOf(report), nil)
		s.PropertyOrder = append(s.PropertyOrder, "report")
	}
	return s, err
}

// cmdSchema checks that a file, or stdout, is a document of a kind.
func cmdSchema(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: schema KIND FILE")
	}
	if err := conforms(args[0], []byte(ts.ReadFile(args[1]))); err != nil {
		ts.Fatalf("%s: %v", args[1], err)
	}
}

func conforms(kind string, text []byte) error {
	if _, known := contractOf(kind); !known {
		return fmt.Errorf("no kind %q", kind)
	}
	s, err := schema(kind)
	if err != nil {
		return err
	}
	resolved, err := s.Resolve(nil)
	if err != nil {
		return err
	}
	var value any
	if err := json.Unmarshal(text, &value); err != nil {
		return err
	}
	return resolved.Validate(value)
}

// reencryptIDs begin with those of the audit after it.
var reencryptIDs = []string{
	"in-the-clear", "malformed", "lost", "not-verified", "outside-prefixes",
	"refused", "stopped", "not-listed", "other-provider", "not-encrypted", "migration-failed", "not-proven", "under-other",
}

var contracts = map[string]contract{
	"Audit": {
		report: audit.Report{},
		ids:    []string{audit.InTheClear, audit.Malformed, audit.Lost, audit.NotVerified, audit.OutsidePrefixes},
	},
	"Conformance": {report: conformance.Report{}, ids: conformanceIDs()},
	"EncryptionConfig": {report: encryptionConfigReport{}, ids: []string{
		"not-read-before", "resource-without-group", "kms-v1", "timeout-short", "invalid", "yaml-style",
		"name-in-use", "wildcard-covers", "several-items", "more-resources", "name-of-kms-v1",
		"endpoint-differs", "timeout-differs", "second-name", "encryption-being-disabled",
	}},
	"Doctor": {report: doctor.Report{}, ids: []string{
		"config", "file-mode", "vault-dns", "vault-tcp", "vault-tls", "vault-health", "vault-clock",
		"login", "token", "token-life", "token-policies", "token-networks", "policy", "policy-needs", "policy-excess",
		"key", "key-settings", "key-versions", "round-trip", "batches",
		"socket", "socket-mode", "plugin-status", "plugin-key-id",
		"encryption-config", "encryption-provider", "encryption-order", "encryption-timeout", "encryption-identity",
		"nodes-found", "node", "node-config", "node-token", "nodes-agree", "plugin-node",
		"kubeconfig", "apiserver", "apiserver-kms", "apiserver-key-id",
	}},
	"KeepStaticPod": {report: keptPod{}},
	"Policy":        {report: policyReport{}},
	"Reencrypt":     {report: reencrypted{}, ids: reencryptIDs},
	"RotateKey":     {report: rotatedKey{}, ids: append([]string{rotatekey.NotRaised}, reencryptIDs...)},
	"RotateToken":   {report: rotate.Report{}, ids: []string{"node-does-not-serve", "node-keeps-old-token", "rotation-incomplete"}},
	"Setup": {report: setUpReport{}, ids: []string{
		"no-ca", "nothing-to-remove", "policy-grants-more", "reviews-as-vault", "role-admits-more", "token-dead", "token-missing", "token-unknown",
	}},
	"Status":  {report: fleet.Report{}, ids: statusIDs},
	"Version": {report: built{}},
}

var statusIDs = []string{
	"node-unreachable", "node-unhealthy", "config-not-in-use", "token-expires", "key-ids-differ", "node-not-named",
	"api-server-without-plugin", "api-servers-unknown", "plugin-unavailable", "plugin-unhealthy", "plugin-not-a-node",
}

func conformanceIDs() (ids []string) {
	for _, c := range conformance.Checks() {
		ids = append(ids, c.Name)
	}
	return ids
}
