// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// relist is how long a pod survives that its manifest cannot be read any more. A
// kubelet ignores such a change, but ends the pod when it reads the whole directory
// again, every 20 seconds (fileCheckFrequency). Shortened.
const relist = 2 * time.Second

// manifests are the files in the directory for static pods, by name.
type manifests map[string]*manifest

type manifest struct {
	pod *corev1.Pod // the last that could be read; may be nil
	bad time.Time   // since when it cannot be read; zero if it can
	why string      // it cannot be read
}

// read returns the static pods. Names that begin with a dot are ignored, as are
// directories (pkg/kubelet/config/file.go).
func (m manifests) read(n *Node) []*corev1.Pod {
	entries, err := os.ReadDir(n.Manifests())
	if err != nil {
		entries = nil // without the directory there are no static pods
	}
	there := make(map[string]bool, len(entries))
	var pods []*corev1.Pod
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || e.IsDir() {
			continue
		}
		pod, gone := m.readOne(n, e.Name())
		if gone {
			continue
		}
		there[e.Name()] = true
		if pod != nil {
			pods = append(pods, pod)
		}
	}
	for name := range m {
		if !there[name] {
			delete(m, name)
		}
	}
	return pods
}

func (m manifests) readOne(n *Node, name string) (pod *corev1.Pod, gone bool) {
	pod, err := ReadManifest(filepath.Join(n.Manifests(), name), n.Name)
	if os.IsNotExist(err) {
		return nil, true
	}
	known := m[name]
	if known == nil {
		known = new(manifest)
		m[name] = known
	}
	if err == nil {
		*known = manifest{pod: pod}
		return pod, false
	}
	if known.bad.IsZero() {
		known.bad = time.Now()
	}
	if why := err.Error(); why != known.why {
		known.why = why
		n.record(name, Refused, err)
	}
	if time.Since(known.bad) > relist {
		known.pod = nil
	}
	return known.pod, false
}
