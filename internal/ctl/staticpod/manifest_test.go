// SPDX-License-Identifier: Apache-2.0

package staticpod_test

import (
	"strings"
	"testing"

	"github.com/trousseau-io/trousseau/internal/ctl/staticpod"
)

func TestParse(t *testing.T) {
	const good = "---\n# Source: trousseau/templates/staticpod.yaml\napiVersion: v1\nkind: Pod\nmetadata: {name: trousseau, namespace: kube-system}\n" +
		"spec: {containers: [{name: trousseau, image: image}]}\n"
	m, err := staticpod.Parse([]byte(good))
	if err != nil || m.Name != "trousseau" || m.Namespace != "kube-system" || m.Revision != "" {
		t.Errorf("Parse: %+v, %v", m, err)
	}
	for _, tc := range []struct{ name, text, want string }{
		{"nothing", "", "the manifest is empty"},
		{"blanks", "\n \n", "the manifest is empty"},
		{"cut off", good[:len(good)-8], "the manifest is not YAML: yaml: "},
		{"another program's output", "Error\n", `the manifest is not a Pod: `},
		{"what mode=daemonSet renders", "apiVersion: v1\nkind: ServiceAccount\n---\napiVersion: apps/v1\nkind: DaemonSet\n",
			"the manifest has more than one document, want one Pod: render the chart with mode=staticPod"},
		{"another kind", "apiVersion: apps/v1\nkind: DaemonSet\n", `the manifest is a "DaemonSet" of "apps/v1", want a Pod of v1`},
		{"a key twice", good + "kind: Pod\n", `key "kind" already set in map`},
		{"a key twice, deeper", good + "status: {a: {b: 1, b: 2}}\n", `key "b" already set in map`},
		{"no name", strings.Replace(good, "name: trousseau, namespace", "namespace", 1), "metadata.name of the pod is empty"},
		{"no container", strings.Replace(good, "{name: trousseau, image: image}", "", 1), "spec.containers of the pod is empty"},
		{"no image", strings.Replace(good, "image: image", "image:", 1), `container "trousseau" of the pod has no image`},
	} {
		if _, err := staticpod.Parse([]byte(tc.text)); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got error %v, want %q", tc.name, err, tc.want)
		}
	}
}

// Only a whole revision is installed: the name holds the digest of the manifest.
func TestRevision(t *testing.T) {
	n := newNode(t)
	m := n.revision("image:1")
	n.keeper(n.options(m))
	other := n.revision("image:2")
	for _, tc := range []struct{ name, text, want string }{
		{"the pod of mode=staticPod", strings.ReplaceAll(string(m.Text), "-"+m.Revision, ""),
			"pod trousseau is not a revision: its name does not end in its annotation trousseau.io/revision; render the chart with mode=installer"},
		{"edited", strings.Replace(string(m.Text), "image:1", "image:2", 1), "pod " + m.Name + ": the manifest is not what the chart has rendered: its digest is not " + m.Revision},
		{"cut off after a line", string(m.Text)[:strings.Index(string(m.Text), "    args:")], "its digest is not " + m.Revision},
		{"another revision's name", strings.ReplaceAll(string(m.Text), m.Revision, other.Revision), "its digest is not " + other.Revision},
		{"a name that is a path", string(n.render("../trousseau", "kube-system", "image").Text), "the names are not valid"},
		{"no health socket", string(n.seal(strings.NewReplacer(m.Revision, placeholder, "--health-addr", "--ops-addr").Replace(strings.TrimSpace(string(m.Text)))).Text),
			"--health-addr of its container trousseau is not a socket of this revision"},
	} {
		parsed, err := staticpod.Parse([]byte(tc.text))
		if err == nil {
			_, err = staticpod.New(n.options(parsed))
		}
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got error %v, want %q", tc.name, err, tc.want)
		}
	}
}
