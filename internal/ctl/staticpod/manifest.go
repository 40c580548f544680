// SPDX-License-Identifier: Apache-2.0

// Package staticpod keeps Trousseau's static pod in kubelet's manifest directory: it
// installs a new revision beside the old one, and removes the old one only when the
// new one has proven the key.
package staticpod

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/trousseau-io/trousseau/internal/endpoint"
)

const (
	// revisionAnnotation holds the last part of the pod's name.
	revisionAnnotation = "trousseau.io/revision"
	// placeholder stands for the revision in the text that it is the digest of.
	placeholder = "REVISION-OF-THIS-MANIFEST"
	// maxManifest is far above what an API server stores of a pod, in bytes.
	maxManifest = 1 << 20
)

var (
	marker      = regexp.MustCompile(`(?m)^---(\s|$)`) // of a document
	name        = regexp.MustCompile(`^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$`)
	revisionEnd = regexp.MustCompile(`^(.+)-([0-9a-f]{10})$`)
)

// Manifest is the manifest of one pod.
type Manifest struct {
	Text []byte
	// Name and Namespace are the pod's.
	Name, Namespace string
	// App and Revision are the parts of the name of a pod that the chart renders for the
	// installer: APP-REVISION. Revision is empty for any other pod.
	App, Revision string
	// Health is the path of the unix socket of the pod's Trousseau for its own probes; ""
	// if it has none.
	Health string
}

// pod is the part of a Pod that is looked at. The API server or kubelet checks the rest.
type pod struct {
	APIVersion, Kind string
	Metadata         struct {
		Name, Namespace string
		Annotations     map[string]string
	}
	Spec struct {
		Containers []struct {
			Name, Image string
			Args        []string
		}
	}
}

// Parse reads a manifest. Everything but exactly one v1 Pod with a name and with images
// is an error, and so is a key that is there twice.
func Parse(text []byte) (Manifest, error) {
	m := Manifest{Text: text}
	if len(bytes.TrimSpace(text)) == 0 {
		return m, errors.New("the manifest is empty")
	}
	var p pod
	documents := 0
	for _, document := range marker.Split(string(text), -1) {
		// kubelet's parser, which takes the last of two equal keys unless it is strict.
		whole, err := yaml.YAMLToJSONStrict([]byte(document))
		switch {
		case err != nil:
			return m, fmt.Errorf("the manifest is not YAML: %w", err)
		case string(whole) == "null": // blanks and comments
			continue
		}
		if documents++; documents > 1 {
			return m, errors.New("the manifest has more than one document, want one Pod: render the chart with mode=staticPod")
		}
		if err := json.Unmarshal(whole, &p); err != nil {
			return m, fmt.Errorf("the manifest is not a Pod: %w", err)
		}
	}
	switch {
	case p.APIVersion != "v1" || p.Kind != "Pod":
		return m, fmt.Errorf("the manifest is a %q of %q, want a Pod of v1", p.Kind, p.APIVersion)
	case p.Metadata.Name == "":
		return m, errors.New("metadata.name of the pod is empty")
	case len(p.Spec.Containers) == 0:
		return m, errors.New("spec.containers of the pod is empty")
	}
	for _, c := range p.Spec.Containers {
		if c.Image == "" {
			return m, fmt.Errorf("container %q of the pod has no image", c.Name)
		}
		for _, arg := range c.Args {
			if addr, ok := strings.CutPrefix(arg, "--health-addr="); ok && c.Name == "trousseau" && addr != "" {
				var err error
				if m.Health, err = endpoint.ParsePath(addr); err != nil {
					return m, fmt.Errorf("--health-addr of container %q of the pod: %w", c.Name, err)
				}
			}
		}
	}
	m.Name, m.Namespace = p.Metadata.Name, p.Metadata.Namespace
	if parts := revisionEnd.FindStringSubmatch(m.Name); parts != nil && parts[2] == p.Metadata.Annotations[revisionAnnotation] {
		m.App, m.Revision = parts[1], parts[2]
	}
	return m, nil
}

// Verify returns an error unless the manifest is a whole revision, as the chart has
// rendered it.
func (m Manifest) Verify() error {
	sum := sha256.Sum256(bytes.ReplaceAll(bytes.TrimSpace(m.Text), []byte(m.Revision), []byte(placeholder)))
	switch {
	case m.Revision == "":
		return fmt.Errorf("pod %s is not a revision: its name does not end in its annotation %s; render the chart with mode=installer", m.Name, revisionAnnotation)
	case !name.MatchString(m.App) || !name.MatchString(m.Namespace):
		return fmt.Errorf("pod %q in namespace %q: the names are not valid", m.Name, m.Namespace)
	case hex.EncodeToString(sum[:])[:len(m.Revision)] != m.Revision:
		return fmt.Errorf("pod %s: the manifest is not what the chart has rendered: its digest is not %s", m.Name, m.Revision)
	case !strings.Contains(m.Health, m.Revision):
		return fmt.Errorf("pod %s: --health-addr of its container trousseau is not a socket of this revision", m.Name)
	}
	return nil
}

// file is the name of the manifest's file.
func (m Manifest) file() string { return m.Name + ".yaml" }

// succeeds reports whether old is another revision of the same pod, by its file's name
// and by its content.
func (m Manifest) succeeds(file string, old Manifest) bool {
	return old.Revision != "" && old.Revision != m.Revision && file == old.file() &&
		old.App == m.App && old.Namespace == m.Namespace
}
