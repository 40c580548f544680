// SPDX-License-Identifier: Apache-2.0

package audit_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	kmstypes "k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2/v2"

	"github.com/trousseau-io/trousseau/internal/ctl/audit"
	"github.com/trousseau-io/trousseau/internal/ctl/audit/drill"
	"github.com/trousseau-io/trousseau/internal/ctl/etcd"
	"github.com/trousseau-io/trousseau/internal/ctl/finding"
	"github.com/trousseau-io/trousseau/internal/keyid"
	"github.com/trousseau-io/trousseau/internal/seed"
	"github.com/trousseau-io/trousseau/internal/testkit/storedtest"
)

// counted is an audit of several objects, by key.
func counted(opts audit.Options, objects map[string][]byte) *audit.Audit {
	opts.Prefixes = []string{"/registry/"}
	a := audit.New(opts)
	revision := int64(1)
	for key, value := range objects {
		revision++
		_ = a.Add(etcd.Object{Key: []byte(key), Value: value, Revision: revision})
	}
	return a
}

// under is a seed encrypted by a version of transit/kms.
func under(version int, name string) seed.Wrapped {
	return seed.Wrapped{
		KeyID:      fmt.Sprintf("transit/kms/v%d@%d", version, 1700000000+version),
		Ciphertext: fmt.Appendf(nil, "vault:v%d:%s", version, name),
	}
}

func trousseau(version int, name string) []byte {
	return storedtest.KMSv2("trousseau", under(version, name))
}

var live = audit.Source{Kind: "etcd", Names: []string{"https://127.0.0.1:2379"}, Revision: 100}

func answer(t *testing.T, r audit.Report, question string) audit.Answer {
	t.Helper()
	i := slices.IndexFunc(r.Answers, func(a audit.Answer) bool { return a.Question == question })
	if i < 0 {
		t.Fatalf("no answer to %q", question)
	}
	return r.Answers[i]
}

func TestAllIsWell(t *testing.T) {
	r := counted(audit.Options{}, map[string][]byte{
		"/registry/secrets/a/1":    trousseau(3, "x"),
		"/registry/secrets/a/2":    trousseau(3, "x"),
		"/registry/secrets/a/3":    trousseau(2, "y"),
		"/registry/configmaps/a/1": trousseau(3, "x"),
		"/registry/pods/a/1":       storedtest.Protobuf(),
	}).Report(live)
	if len(r.Findings) != 0 {
		t.Errorf("findings %+v, want none", r.Findings)
	}
	if r.Objects != 5 || len(r.Resources) != 3 {
		t.Errorf("%d objects of %d resources, want 5 of 3", r.Objects, len(r.Resources))
	}
	secrets := r.Resources[1]
	if secrets.Name != "secrets" || len(secrets.Groups) != 2 || secrets.Groups[0].Objects != 2 || secrets.Groups[0].Seeds != 1 || secrets.Groups[0].Version != 3 {
		t.Errorf("secrets: %+v", secrets)
	}
	// A seed shared by Secrets and ConfigMaps counts once.
	if k := r.KeyIDs[0]; k.KeyID != "transit/kms/v3@1700000003" || k.Hash != keyid.Hash(k.KeyID) || k.Objects != 3 || k.Seeds != 1 || k.Created == nil {
		t.Errorf("the first key_id: %+v", k)
	}
	if a := answer(t, r, audit.QuestionClear); a.Verdict != "no" || !strings.Contains(a.Text[0], "all 4 objects of configmaps, secrets are encrypted") || !strings.Contains(a.Text[1], "Not encrypted, and not expected to be: pods.") {
		t.Errorf("%+v", a)
	}
	if a := answer(t, r, audit.QuestionVersions); a.Verdict != "transit/kms v3, transit/kms v2" {
		t.Errorf("%+v", a)
	}
	a := answer(t, r, audit.QuestionMinimum)
	if a.Verdict != "transit/kms: 2" || r.TransitKeys[0].MayBecome != 2 || !strings.Contains(a.Text[0], "1 object is still under version 2; once they are re-encrypted, you can raise it to 3") {
		t.Errorf("%+v", a)
	}
	all := strings.Join(a.Text, " ")
	for _, caution := range []string{"etcd backups", "other clusters", "trousseauctl status", "cannot undo"} {
		if !strings.Contains(all, caution) {
			t.Errorf("the answer does not mention %q", caution)
		}
	}
}

func TestFindings(t *testing.T) {
	tests := map[string]struct {
		opts    audit.Options
		objects map[string][]byte
		want    string // kind: text
		first   string
	}{
		"a secret in the clear": {
			objects: map[string][]byte{"/registry/secrets/a/1": trousseau(1, "x"), "/registry/secrets/a/2": storedtest.Protobuf(), "/registry/secrets/a/3": storedtest.JSON()},
			want:    "in-the-clear: 2 of 3 secrets are in the clear", first: "/registry/secrets/a/2 /registry/secrets/a/3",
		},
		"all secrets in the clear": {
			objects: map[string][]byte{"/registry/secrets/a/1": storedtest.Protobuf()},
			want:    "in-the-clear: 1 of 1 secrets are in the clear", first: "/registry/secrets/a/1",
		},
		"half a resource": {
			objects: map[string][]byte{"/registry/configmaps/a/1": storedtest.AESCBC("k"), "/registry/configmaps/a/2": storedtest.Protobuf()},
			want:    "in-the-clear: 1 of 2 configmaps are in the clear", first: "/registry/configmaps/a/2",
		},
		"asked for": {
			opts:    audit.Options{Asked: []string{"widgets.example.com"}},
			objects: map[string][]byte{"/registry/example.com/widgets/a/1": storedtest.JSON()},
			want:    "in-the-clear: 1 of 1 widgets.example.com are in the clear", first: "/registry/example.com/widgets/a/1",
		},
		"malformed": {
			objects: map[string][]byte{"/registry/pods/a/1": []byte("k8s:enc:kms:v2:p:x")},
			want:    "malformed: 1 object of pods cannot be read with any key: the data after the provider's name is not an EncryptedObject", first: "/registry/pods/a/1",
		},
		"versions do not agree": {
			objects: map[string][]byte{"/registry/secrets/a/1": storedtest.KMSv2("p", seed.Wrapped{KeyID: "transit/kms/v1", Ciphertext: []byte("vault:v2:x")})},
			want:    "malformed: 1 object of secrets cannot be read with any key: its key_id names version 1, but its seed was wrapped by version 2: Trousseau refuses to unwrap it", first: "/registry/secrets/a/1",
		},
		"not meant to be encrypted": {
			objects: map[string][]byte{"/registry/secrets/a/1": trousseau(1, "x"), "/registry/pods/a/1": storedtest.Protobuf(), "/registry/ranges/serviceips": []byte("?")},
		},
		"local keys": {
			objects: map[string][]byte{"/registry/secrets/a/1": storedtest.AESGCM("k"), "/registry/secrets/a/2": storedtest.Secretbox("k"), "/registry/secrets/a/3": storedtest.KMSv1("p", []byte("vault:v1:x"))},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := counted(test.opts, test.objects).Report(live)
			var got, first string
			for _, f := range r.Findings {
				got += f.ID + ": " + f.Text
				first += strings.Join(f.Examples, " ")
			}
			if got != test.want || first != test.first {
				t.Errorf("got %q, with %s\nwant %q, with %s", got, first, test.want, test.first)
			}
		})
	}
}

// If it is uncertain what all objects need, no version is reported as safe. Values that
// name a version of a key, but not the key, may need any of the keys.
func TestMinimumIsNotGuessed(t *testing.T) {
	other := func(provider, keyID, ciphertext string) []byte {
		return storedtest.KMSv2(provider, seed.Wrapped{KeyID: keyID, Ciphertext: []byte(ciphertext)})
	}
	tests := map[string]struct {
		opts   audit.Options
		object []byte
		may    int
		want   string
	}{
		"only some resources":       {audit.Options{Asked: []string{"secrets"}}, trousseau(3, "x"), 0, "only secrets was audited"},
		"malformed":                 {audit.Options{}, []byte("k8s:enc:kms:v2:x"), 0, "cannot be decoded"},
		"not Vault's":               {audit.Options{}, other("trousseau", "1", "x"), 0, "1 object of secrets, stored by KMS v2 under provider trousseau, may need any version"},
		"another plugin's":          {audit.Options{}, other("aws", "arn:aws:kms", "AQIDBA=="), 0, "under provider aws, may need any version"},
		"version 0":                 {audit.Options{}, other("aws", "1", "vault:v0:x"), 0, "may need any version"},
		"not first":                 {audit.Options{}, other("aws", "1", `{"a":"vault:v3:x"}`), 0, "may need any version"},
		"ours without a version":    {audit.Options{}, other("trousseau", "transit/kms/v3", "x"), 0, "may need any version"},
		"KMS v1, not Vault's":       {audit.Options{}, storedtest.KMSv1("aws", []byte("x")), 0, "1 object of secrets, stored by KMS v1 under provider aws, may need any version"},
		"KMS v1 without a DEK":      {audit.Options{}, storedtest.KMSv1("aws", nil), 0, "may need any version"},
		"KMS v1, older":             {audit.Options{}, storedtest.KMSv1("old", []byte("vault:v2:x")), 2, "2 of a key that KMS v1 and other plugins do not record, and which may be this one; once they are re-encrypted, you can raise it to 3."},
		"KMS v1, newer":             {audit.Options{}, storedtest.KMSv1("old", []byte("vault:v4:x")), 3, "1 object is still under version 3; once they are re-encrypted, you can raise it to 4."},
		"a bare version, older":     {audit.Options{}, other("falco", "1", "vault:v1:x"), 1, "1 object is under version 1 of a key that KMS v1"},
		"a bare key, the same":      {audit.Options{}, other("falco", "kms", "vault:v3:x"), 3, "under version 3 of a key that KMS v1"},
		"a local key":               {audit.Options{}, storedtest.AESCBC("k"), 3, "no further"},
		"without its creation":      {audit.Options{}, other("trousseau", "transit/kms/v3", "vault:v3:x"), 3, "no further"},
		"older, by another of ours": {audit.Options{}, other("eu", "team-a/transit/kms/v1", "vault:v1:x"), 3, "no further"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := counted(test.opts, map[string][]byte{"/registry/secrets/a/1": trousseau(3, "x"), "/registry/secrets/a/2": test.object}).Report(live)
			i := slices.IndexFunc(r.TransitKeys, func(k audit.TransitKey) bool { return k.Engine == "transit" })
			key, a := r.TransitKeys[i], answer(t, r, audit.QuestionMinimum)
			verdict := fmt.Sprint("transit/kms: ", test.may)
			if test.may == 0 {
				verdict = "transit/kms: unknown"
			}
			if key.MayBecome != test.may || (key.Unknown == "") != (test.may > 0) || !strings.Contains(a.Verdict, verdict) {
				t.Errorf("got %+v, %s, want %s", key, a.Verdict, verdict)
			}
			if text := strings.Join(a.Text, " "); !strings.Contains(text, test.want) {
				t.Errorf("got %s\nwant %s", text, test.want)
			}
		})
	}
	r := counted(audit.Options{}, map[string][]byte{"/registry/secrets/a/1": storedtest.AESCBC("k")}).Report(live)
	if a := answer(t, r, audit.QuestionMinimum); a.Verdict != "unknown" {
		t.Errorf("with no key of transit's: %+v", a)
	}
	r = counted(audit.Options{}, map[string][]byte{"/registry/secrets/a/1": storedtest.KMSv1("old", []byte("vault:v2:x"))}).Report(live)
	if a := answer(t, r, audit.QuestionMinimum); a.Verdict != "unknown" || !strings.Contains(a.Text[0], "Do not raise it above 2 for any key") {
		t.Errorf("with KMS v1 only: %+v", a)
	}
	if a := answer(t, r, audit.QuestionVersions); a.Verdict != "unrecorded key v2" {
		t.Errorf("with KMS v1 only: %+v", a)
	}
}

// Encrypted values outside of the prefixes count for the versions that they need, and
// are named. If they cannot be read, no version is safe.
func TestOutside(t *testing.T) {
	a := counted(audit.Options{}, map[string][]byte{"/registry/secrets/a/1": trousseau(3, "x")})
	for key, value := range map[string][]byte{
		"/kubernetes.io/secrets/a/1": trousseau(2, "y"),
		"/kubernetes.io/secrets/a/2": storedtest.KMSv1("old", []byte("vault:v4:x")),
		"/kubernetes.io/pods/a/1":    storedtest.Protobuf(),
		"compact_rev_key":            []byte("1234"),
	} {
		_ = a.AddOutside(etcd.Object{Key: []byte(key), Value: value, Revision: 7})
	}
	r := a.Report(live)
	if r.Objects != 1 || r.TransitKeys[0].MayBecome != 2 || r.KeyIDs[1].Objects != 1 {
		t.Errorf("%d objects, %+v, %+v, want 1, and version 2 needed by what is outside", r.Objects, r.TransitKeys, r.KeyIDs)
	}
	want := finding.Finding{
		ID: audit.OutsidePrefixes, Severity: finding.Warning, Subject: "/kubernetes.io/", Objects: 2,
		Text:     "2 encrypted objects are under /kubernetes.io/, outside of /registry/: counted here only for the key versions that they need",
		Do:       "add --prefix /kubernetes.io to audit them too",
		Examples: []string{"/kubernetes.io/secrets/a/1", "/kubernetes.io/secrets/a/2"},
	}
	if len(r.Findings) != 1 || !reflect.DeepEqual(r.Findings[0], want) {
		t.Errorf("findings %+v\nwant %+v", r.Findings, want)
	}
	unread := live
	unread.OutsideUnread = true
	r = counted(audit.Options{}, map[string][]byte{"/registry/secrets/a/1": trousseau(3, "x")}).Report(unread)
	if key := r.TransitKeys[0]; key.MayBecome != 0 || !strings.Contains(key.Unknown, "may not read outside of /registry/") {
		t.Errorf("%+v, want it unknown", key)
	}
	if len(r.Findings) != 0 || !strings.Contains(strings.Join(r.Notes, " "), "may not read outside of /registry/: encrypted values there") {
		t.Errorf("findings %+v, notes %q, want a note", r.Findings, r.Notes)
	}
}

// Several prefixes are audited as one.
func TestSeveralPrefixes(t *testing.T) {
	a := audit.New(audit.Options{Prefixes: []string{"/kubernetes.io/", "/openshift.io/"}})
	for key, value := range map[string][]byte{
		"/kubernetes.io/secrets/a/1":              trousseau(3, "x"),
		"/openshift.io/oauth/accesstokens/sha256": trousseau(2, "x"),
	} {
		_ = a.Add(etcd.Object{Key: []byte(key), Value: value})
	}
	r := a.Report(live)
	if len(r.Resources) != 2 || r.Resources[0].Name != "oauth" || r.Resources[1].Name != "secrets" || r.TransitKeys[0].MayBecome != 2 {
		t.Errorf("%+v, %+v", r.Resources, r.TransitKeys)
	}
	asked := audit.New(audit.Options{Prefixes: []string{"/kubernetes.io/", "/openshift.io/"}, Asked: []string{"secrets", "routes"}})
	want := []string{"/kubernetes.io/routes/", "/kubernetes.io/secrets/", "/openshift.io/routes/", "/openshift.io/secrets/"}
	if got := asked.Prefixes(); !slices.Equal(got, want) {
		t.Errorf("to read: %q, want %q", got, want)
	}
}

// Each transit key has a separate result.
func TestSeveralKeys(t *testing.T) {
	other := storedtest.KMSv2("eu", seed.Wrapped{KeyID: "team-a/transit/eu/v7", Ciphertext: []byte("vault:v7:x")})
	r := counted(audit.Options{}, map[string][]byte{
		"/registry/secrets/a/1": trousseau(1, "x"), "/registry/secrets/a/2": trousseau(2, "x"), "/registry/secrets/a/3": other,
	}).Report(live)
	if a := answer(t, r, audit.QuestionMinimum); a.Verdict != "team-a/transit/eu: 7, transit/kms: 1" {
		t.Errorf("%+v", a)
	}
}

func TestKeyRecreated(t *testing.T) {
	again := under(1, "y")
	again.KeyID = "transit/kms/v1@1800000000"
	r := counted(audit.Options{}, map[string][]byte{"/registry/secrets/a/1": trousseau(1, "x"), "/registry/secrets/a/2": storedtest.KMSv2("trousseau", again)}).Report(live)
	if len(r.Notes) != 1 || !strings.Contains(r.Notes[0], "deleted and recreated") {
		t.Errorf("notes %q, want that the key was recreated", r.Notes)
	}
}

func TestOlderValues(t *testing.T) {
	a := counted(audit.Options{}, map[string][]byte{"/registry/secrets/a/1": trousseau(1, "x")})
	for _, key := range []string{"/registry/secrets/a/1", "/registry/secrets/a/deleted", "/registry/pods/a/1"} {
		a.AddOlder(etcd.Object{Key: []byte(key), Value: storedtest.Protobuf()})
	}
	a.AddOlder(etcd.Object{Key: []byte("/registry/secrets/a/1"), Value: trousseau(1, "x")})
	r := a.Report(audit.Source{Kind: "snapshot", Checksum: etcd.ChecksumMissing})
	if r.Objects != 1 || len(r.Findings) != 0 {
		t.Errorf("%d objects, %+v, want 1 and no findings", r.Objects, r.Findings)
	}
	text := strings.Join(answer(t, r, audit.QuestionClear).Text, " ")
	if !strings.Contains(text, "also holds 2 old values in the clear") {
		t.Errorf("the answer is %q", text)
	}
	if !strings.Contains(strings.Join(r.Notes, " "), "has no SHA-256 at its end") {
		t.Errorf("notes %q, want that the checksum is missing", r.Notes)
	}
}

func TestDrill(t *testing.T) {
	objects := map[string][]byte{"/registry/secrets/a/local": storedtest.AESCBC("k")}
	for i := range 20 {
		objects[fmt.Sprintf("/registry/secrets/a/%02d", i)] = trousseau(1+i%2, fmt.Sprint(i%4))
	}
	a := counted(audit.Options{Drill: true}, objects)
	seeds := a.Seeds()
	if len(seeds) != 4 {
		t.Fatalf("there are %d seeds, want 4", len(seeds))
	}
	results := make([]drill.Result, len(seeds))
	for i, s := range seeds {
		switch string(s.Ciphertext) {
		case "vault:v1:0":
			results[i] = drill.Result{Verdict: drill.Lost, Reason: "gone"}
		case "vault:v2:1":
			results[i] = drill.Result{Verdict: drill.Unknown, Reason: "away"}
		default:
			results[i] = drill.Result{Verdict: drill.Readable}
		}
	}
	a.Drilled(results)
	r := a.Report(live)
	d := r.Drill
	if d.Seeds != 4 || d.Readable != 2 || d.Lost != 1 || d.Unknown != 1 || d.LostObjects != 5 || d.UnknownObjects != 5 {
		t.Errorf("%+v", d)
	}
	lost := d.Failures[0]
	if lost.Reason != "gone" || lost.Objects != 5 || !slices.Equal(lost.FirstKeys, []string{
		"/registry/secrets/a/00", "/registry/secrets/a/04", "/registry/secrets/a/08", "/registry/secrets/a/12", "/registry/secrets/a/16"}) {
		t.Errorf("%+v", lost)
	}
	if len(r.Findings) != 2 || r.Findings[0].ID != audit.Lost || r.Findings[1].ID != audit.NotVerified ||
		r.Findings[0].Text != "5 objects under 1 seed of key_id transit/kms/v1@1700000001 can no longer be decrypted: gone" {
		t.Errorf("findings %+v", r.Findings)
	}
	if !strings.HasPrefix(r.Notes[0], "1 object is encrypted with a local key") {
		t.Errorf("notes %q", r.Notes)
	}
}

// After a drill, each unreadable object has the call that deletes it, which is safe in a
// shell.
func TestUnreadable(t *testing.T) {
	lost := trousseau(1, "lost")
	calls := map[string]string{
		"/registry/secrets/default/a":                                   "/api/v1/namespaces/default/secrets/a",
		"/registry/services/specs/default/a":                            "/api/v1/namespaces/default/services/a",
		"/registry/minions/node-1":                                      "/api/v1/nodes/node-1",
		"/registry/deployments/default/a":                               "/apis/apps/v1/namespaces/default/deployments/a",
		"/registry/apiregistration.k8s.io/apiservices/v1.":              "/apis/apiregistration.k8s.io/v1/apiservices/v1.",
		"/registry/example.com/widgets/default/a":                       "/apis/example.com/VERSION/namespaces/default/widgets/a",
		"/registry/secrets/default/system:a":                            "/api/v1/namespaces/default/secrets/system:a",
		"/registry/secrets/de fault/a'; rm -rf $HOME; '?x=1#\n\x1b[2J/": "", // has no name at the end
		"/registry/secrets/de fault/a'; rm $HOME `x` ?y=1#\n\x1b[2J\\":  "/api/v1/namespaces/de%20fault/secrets/a%27%3B%20rm%20$HOME%20%60x%60%20%3Fy=1%23%0A%1B%5B2J%5C",
		"/registry/namespaces/default":                                  "",
		"/registry/roles/default/a":                                     "",
		"/registry/ranges/serviceips":                                   "",
		"/registry/secrets/a/b/c":                                       "",
		"/registry/secrets/":                                            "",
	}
	objects := map[string][]byte{"/registry/secrets/default/readable": trousseau(2, "x"), "/registry/pods/a/1": storedtest.Protobuf()}
	for key := range calls {
		objects[key] = lost
	}
	objects["/registry/secrets/default/a"] = []byte("k8s:enc:kms:v2:p:x")
	a := counted(audit.Options{Drill: true}, objects)
	var results []drill.Result
	for _, s := range a.Seeds() {
		verdict := drill.Readable
		if string(s.Ciphertext) == "vault:v1:lost" {
			verdict = drill.Lost
		}
		results = append(results, drill.Result{Verdict: verdict})
	}
	a.Drilled(results)
	if !a.AnyUnreadable() {
		t.Error("the audit does not ask for the objects again")
	}
	for key, value := range objects {
		_ = a.AddUnreadable(etcd.Object{Key: []byte(key), Value: value})
	}
	r := a.Report(live)
	if len(r.Unreadable) != len(calls) || r.UnreadableObjects() != len(calls) {
		t.Errorf("%d of %d are listed, want %d", len(r.Unreadable), r.UnreadableObjects(), len(calls))
	}
	got := make(map[string]bool)
	for _, u := range r.Unreadable {
		got[u.Remove] = true
	}
	for key, path := range calls {
		want := ""
		if path != "" {
			want = "kubectl delete --raw '" + path + "?ignoreStoreReadErrorWithClusterBreakingPotential=true'"
		}
		if !got[want] {
			t.Errorf("%q: no call %s", key, want)
		}
	}
	if well := counted(audit.Options{Drill: true}, map[string][]byte{"/registry/secrets/a/1": trousseau(1, "x")}); well.AnyUnreadable() {
		t.Error("without unreadable objects, etcd would be read twice")
	}
}

// The output contains no values, and control characters from etcd are escaped.
func TestReportIsFitToBePrinted(t *testing.T) {
	hostile := "\x1b[2J\x1b]0;owned\a"
	w := seed.Wrapped{KeyID: hostile, Ciphertext: []byte("wrapped-" + storedtest.Secret)}
	r := counted(audit.Options{Drill: true}, map[string][]byte{
		"/registry/secrets/a/" + hostile:        storedtest.Protobuf(),
		"/registry/secrets/a/1":                 storedtest.KMSv2(hostile, w),
		"/registry/" + hostile + ".x/widgets/a": storedtest.AESCBC(hostile),
		"/registry/secrets/a/2":                 append([]byte("k8s:enc:rot13:"), storedtest.Secret...),
	}).Report(live)
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), storedtest.Secret) {
		t.Errorf("the report contains a value: %s", text)
	}
	var check func(any)
	check = func(v any) {
		switch v := v.(type) {
		case string:
			if strings.ContainsAny(v, "\x1b\a") {
				t.Errorf("%q is in the report unescaped", v)
			}
		case []any:
			for _, e := range v {
				check(e)
			}
		case map[string]any:
			for _, e := range v {
				check(e)
			}
		}
	}
	var all any
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	check(all)
}

// Empty lists are [] in JSON, for programs that read it.
func TestReportHasNoNulls(t *testing.T) {
	for name, objects := range map[string]map[string][]byte{
		"nothing": nil, "in the clear": {"/registry/secrets/a/1": storedtest.Protobuf()}, "well": {"/registry/secrets/a/1": trousseau(1, "x")},
	} {
		a := counted(audit.Options{Drill: true}, objects)
		a.Drilled(make([]drill.Result, len(a.Seeds())))
		text, err := json.Marshal(a.Report(live))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), ":null") {
			t.Errorf("%s: %s", name, text)
		}
	}
}

// Seeds are distinguished as in kube-apiserver.
func TestDistinctSeeds(t *testing.T) {
	object := func(keyID, source, annotation string, kind kmstypes.EncryptedDEKSourceType) []byte {
		return storedtest.KMSv2Object("p", &kmstypes.EncryptedObject{
			EncryptedData: make([]byte, 100), KeyID: keyID, EncryptedDEKSource: []byte(source), EncryptedDEKSourceType: kind,
			Annotations: map[string][]byte{"a.b": []byte(annotation)},
		})
	}
	r := counted(audit.Options{}, map[string][]byte{
		"/registry/secrets/a/1": object("k", "s", "a", 1), "/registry/secrets/a/2": object("k", "s", "a", 1),
		"/registry/secrets/a/3": object("k", "t", "a", 1), "/registry/secrets/a/4": object("k", "s", "b", 1),
		"/registry/secrets/a/5": object("k", "s", "a", 0),
	}).Report(live)
	if r.KeyIDs[0].Seeds != 4 || r.KeyIDs[0].Objects != 5 {
		t.Errorf("%+v, want 4 seeds of 5 objects", r.KeyIDs[0])
	}
}
