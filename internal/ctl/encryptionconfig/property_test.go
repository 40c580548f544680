// SPDX-License-Identifier: Apache-2.0

package encryptionconfig_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trousseau-io/trousseau/internal/ctl/encryptionconfig"
	"github.com/trousseau-io/trousseau/internal/endpoint"
)

// TestProperties edits random files, in many styles and with many providers.
func TestProperties(t *testing.T) {
	done := map[string]int{}
	for seed := range uint64(500) {
		w := writer{rand.New(rand.NewPCG(seed, 6))}
		text := w.file()
		o := options([]encryptionconfig.Phase{encryptionconfig.Read, encryptionconfig.Write}[w.IntN(2)])
		o.Resources = []string{"secrets"}
		if w.IntN(4) == 0 {
			o.Resources = []string{"configmaps"}
		}
		outcome := checkProperties(t, []byte(text), o)
		if t.Failed() {
			t.Fatalf("seed %d, %s of %v:\n%s", seed, o.Phase, o.Resources, text)
		}
		done[outcome]++
	}
	t.Log(done)
	for _, outcome := range []string{"edited", "as it is", "refused"} {
		if done[outcome] < 25 {
			t.Errorf("%s: %d of 500", outcome, done[outcome])
		}
	}
}

// checkProperties checks properties that hold for every text.
func checkProperties(t *testing.T, text []byte, o encryptionconfig.Options) (outcome string) {
	t.Helper()
	before, problem := encryptionconfig.Parse(text)
	r, err := encryptionconfig.Edit(text, o)
	if err != nil {
		var refused *encryptionconfig.RefusedError
		var invalid *encryptionconfig.InvalidError
		switch {
		case errors.As(err, &refused) && problem == nil:
			return "refused"
		case errors.As(err, &invalid) && problem != nil:
			return "invalid"
		}
		t.Errorf("Parse: %v; Edit: %v", problem, err)
		return ""
	}
	if !r.Changed && !bytes.Equal(r.Text, text) {
		t.Error("another text, although nothing has changed")
	}
	again, err := encryptionconfig.Edit(r.Text, o)
	if err != nil || again.Changed || !bytes.Equal(again.Text, r.Text) {
		t.Errorf("edited twice: %v, changed %v", err, again.Changed)
	}
	after, err := encryptionconfig.Parse(r.Text)
	if err != nil {
		t.Fatalf("Parse: %v", err)
	}
	if want := map[encryptionconfig.Phase]int{encryptionconfig.Read: 1, encryptionconfig.Write: 0}[o.Phase]; position(after, r.Index, "trousseau") > want && r.Changed {
		t.Errorf("%s: ours is at %d", o.Phase, position(after, r.Index, "trousseau"))
	}
	keepsAll(t, before, after)
	keepsLines(t, string(text), string(r.Text))
	if !r.Changed {
		return "as it is"
	}
	return "edited"
}

func position(c encryptionconfig.Configuration, index int, name string) int {
	return slices.IndexFunc(c.Entries[index].Providers, func(p encryptionconfig.Provider) bool { return p.KMS != nil && p.KMS.Name == name })
}

func isOurs(p encryptionconfig.Provider) bool { return p.KMS != nil && p.KMS.Name == "trousseau" }

// keepsAll checks that no provider is lost and that the others keep their order.
func keepsAll(t *testing.T, before, after encryptionconfig.Configuration) {
	t.Helper()
	for i, e := range before.Entries {
		others := func(e encryptionconfig.Entry) (all []string) {
			for _, p := range e.Providers {
				if !isOurs(p) {
					all = append(all, fmt.Sprintf("%v %+v", p, p.KMS))
				}
			}
			return all
		}
		had := slices.ContainsFunc(e.Providers, isOurs)
		has := slices.ContainsFunc(after.Entries[i].Providers, isOurs)
		if was, is := others(e), others(after.Entries[i]); len(was) != len(is) || had && !has {
			t.Errorf("resources[%d]: was %v, is %v", i, was, is)
		}
		if !slices.Equal(e.Resources, after.Entries[i].Resources) {
			t.Errorf("resources[%d] is for %v", i, after.Entries[i].Resources)
		}
	}
}

// keepsLines checks that each line, including comments, occurs as often as before.
// In flow style, a line may have been extended.
func keepsLines(t *testing.T, before, after string) {
	t.Helper()
	if strings.Contains(before, "providers: [") {
		for _, comment := range []string{"# then", "# why", "# far left", "# a note", "# by hand", "# the end", "# - nothing"} {
			if was, is := strings.Count(before, comment), strings.Count(after, comment); was != is {
				t.Errorf("%q was there %d times, is %d times", comment, was, is)
			}
		}
		return
	}
	rest := strings.Split(after, "\n")
	for _, line := range strings.Split(before, "\n") {
		i := slices.Index(rest, line)
		if i < 0 {
			t.Errorf("lost: %q", line)
			return
		}
		rest = slices.Delete(rest, i, i+1)
	}
}

// writer writes random files.
type writer struct{ *rand.Rand }

func (w writer) one(of ...string) string { return of[w.IntN(len(of))] }

func (w writer) file() string {
	var b strings.Builder
	b.WriteString(w.one("", "# by hand\n", "---\n"))
	b.WriteString("apiVersion: apiserver.config.k8s.io/v1\n" + w.one("", "\n") + "kind: " + w.one("", `"`) + "EncryptionConfiguration\n")
	text := strings.Replace(b.String(), `"EncryptionConfiguration`, `"EncryptionConfiguration"`, 1)
	indent := w.one("", "  ", "    ")
	text += "resources:" + w.one("", " # all of them") + "\n"
	left := []string{"secrets", "configmaps", "pods", "deployments.apps"}
	w.Shuffle(len(left), func(i, j int) { left[i], left[j] = left[j], left[i] })
	used := false
	for range 1 + w.IntN(3) {
		text += w.entry(indent, left[0], &used)
		left = left[1:]
	}
	return text + w.one("", "# the end\n", "\n\n", "...\n")
}

func (w writer) entry(indent, resource string, used *bool) string {
	inner := indent + "  "
	deep := inner + w.one("", "  ")
	providers := "providers:\n"
	if w.IntN(4) == 0 {
		providers = "providers: ["
		for i := range 1 + w.IntN(3) {
			if i > 0 {
				providers += "," + w.one("", " ", "\n"+deep+"  ", " # then\n"+deep+"  ")
			}
			providers += w.provider("", used)
		}
		providers += "]\n"
	} else {
		for range 1 + w.IntN(3) {
			providers += w.one("", "", "\n", deep+"# a note\n", "# far left\n")
			providers += w.provider(deep, used)
		}
		providers += w.one("", deep+"# - nothing: {}\n")
	}
	resources := w.one("resources: ["+resource+"]\n", "resources:\n"+inner+"- "+resource+"\n")
	above := w.one("", indent+"# why\n")
	if w.IntN(2) == 0 {
		return above + indent + "- " + resources + inner + providers
	}
	return above + indent + "- " + providers + inner + resources
}

// provider writes one provider in flow style without an indent.
func (w writer) provider(indent string, used *bool) string {
	kind := w.IntN(4)
	if kind == 3 && *used {
		kind = 0
	}
	flow, block := "", ""
	switch kind {
	case 0:
		flow = "{identity: {}}"
		block = "- identity: {}" + w.one("", " # plaintext") + "\n"
	case 1:
		name := w.one("key1", "'}'", `"a # b"`)
		flow = "{aescbc: {keys: [{name: " + name + ", secret: " + secret + "}]}}"
		block = "- aescbc:\n" + indent + "    keys:\n" + indent + "    - name: " + name + "\n" + indent + "      secret: " + secret + "\n"
	case 2:
		flow = `{"secretbox": {"keys": [{"secret": "YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXoxMjM0NTY=", "name": "k"}]}}`
		block = "- " + flow + "\n"
	case 3:
		*used = true
		flow = "{kms: {apiVersion: v2, name: trousseau, endpoint: 'unix:///run/trousseau/kms.sock'}}"
		block = "- kms:\n" + indent + "      name: trousseau\n\n" + indent + "      # ours\n" + indent + "      endpoint: |-\n" + indent + "        unix:///run/trousseau/kms.sock\n" + indent + "      apiVersion: v2\n"
	}
	if indent == "" {
		return flow
	}
	return indent + block
}

// FuzzEdit accepts any text.
func FuzzEdit(f *testing.F) {
	for seed := range uint64(20) {
		f.Add([]byte(writer{rand.New(rand.NewPCG(seed, 7))}.file()), seed%2 == 0)
	}
	for _, file := range invalidFiles(f) {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text, true)
	}
	f.Fuzz(func(t *testing.T, text []byte, write bool) {
		o := options(encryptionconfig.Read)
		if write {
			o.Phase = encryptionconfig.Write
		}
		r, err := encryptionconfig.Edit(text, o)
		if err != nil {
			return
		}
		again, err := encryptionconfig.Edit(r.Text, o)
		if err != nil || again.Changed {
			t.Errorf("edited twice: %v, changed %v", err, again.Changed)
		}
		before, err := encryptionconfig.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		after, err := encryptionconfig.Parse(r.Text)
		if err != nil {
			t.Fatal(err)
		}
		keepsAll(t, before, after)
	})
}

// FuzzOptions puts every option that ends up in a document into new files and into
// files of both styles. Whatever is not refused must come back as it was given.
func FuzzOptions(f *testing.F) {
	f.Add("secrets", "trousseau", "unix:///run/trousseau/kms.sock", int64(0), true)
	f.Add("*.", "yes", `/run/a"b'c: d.sock`, int64(90e9), false)
	f.Add("a\"b.example.com,events", "1e3", "/run/#x:", int64(-1), true)
	f.Add("a: b.c,- d.e", "~", "unix:///@{}", int64(1), false)
	f.Fuzz(func(t *testing.T, resources, name, socket string, timeout int64, write bool) {
		e, err := endpoint.Parse(socket)
		if err != nil {
			return
		}
		o := options(encryptionconfig.Read)
		if write {
			o.Phase = encryptionconfig.Write
		}
		o.Resources, o.Name, o.Endpoint, o.Timeout = strings.Split(resources, ","), name, e, time.Duration(timeout)
		for _, text := range []string{"", head + entry("pods.metrics.k8s.io", identity), head + "- {resources: [pods.metrics.k8s.io], providers: [{identity: {}}]}\n"} {
			r, err := encryptionconfig.New(o)
			if text != "" {
				r, err = encryptionconfig.Edit([]byte(text), o)
			}
			var mistake *encryptionconfig.OptionError
			var refused *encryptionconfig.RefusedError
			if errors.As(err, &mistake) || errors.As(err, &refused) {
				continue
			}
			if err != nil {
				t.Fatalf("%+v: %v", o, err)
			}
			k := r.Entry.Providers[position(encryptionconfig.Configuration{Entries: []encryptionconfig.Entry{r.Entry}}, 0, name)].KMS
			if !slices.Equal(r.Entry.Resources, o.Resources) || k.Name != name || !k.ListensAt(e) || timeout != 0 && k.Timeout != o.Timeout {
				t.Errorf("%+v became %+v with %+v:\n%s", o, r.Entry, k, r.Text)
			}
		}
	})
}
