// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/trousseau-io/trousseau/test/chart/kubelet"
)

// inThePod matches the commands of docs/troubleshooting.md that run doctor in a pod:
// what is sent to it, and what runs there.
var inThePod = regexp.MustCompile(`(?m)^kubectl -n kube-system exec (?:-i )?daemonset/trousseau -- (/trousseauctl doctor[^<\n]*)(?:<(\S+))?$`)

// mustBeSound runs doctor in a pod with the documented commands, which name neither
// files nor sockets nor addresses. Only these checks may warn. The EncryptionConfiguration
// is what the command finds on the node, if there is one.
func (s *stage) mustBeSound(pod *kubelet.Pod, encryption string, warns ...string) {
	s.t.Helper()
	text, err := os.ReadFile("../../docs/troubleshooting.md")
	if err != nil {
		s.t.Fatal(err)
	}
	commands := inThePod.FindAllStringSubmatch(string(text), -1)
	if len(commands) != 2 || commands[0][2] != "" || commands[1][2] != "/etc/kubernetes/encryption/encryption-config.yaml" {
		s.t.Fatalf("docs/troubleshooting.md has the commands %q, want one, and one with what the quick install writes", commands)
	}
	for _, c := range commands {
		var stdin io.Reader
		allowed := []string{"round-trip"} // slow on a busy machine
		if c[2] != "" {
			if encryption == "" {
				continue
			}
			file, err := os.Open(filepath.Join(encryption, filepath.Base(c[2])))
			if err != nil {
				s.t.Fatal(err)
			}
			defer file.Close()
			stdin = file
			allowed = append(allowed, warns...)
		}
		out, err := pod.Container("trousseau").Exec(s.t.Context(), stdin, strings.Fields(c[1])...)
		if err != nil {
			s.t.Errorf("doctor in the pod: %v", err)
			continue
		}
		for _, check := range regexp.MustCompile(`(?m)^WARN  (\S+)`).FindAllStringSubmatch(out, -1) {
			if !slices.Contains(allowed, check[1]) {
				s.t.Errorf("%s warns in the pod:\n%s", check[1], out)
			}
		}
		for _, check := range []string{"config /etc/trousseau/config.yaml", "token https://", "round-trip https://", "plugin-key-id ", "node 127.0.0.1:", "plugin-node\n"} {
			if !regexp.MustCompile(`(?m)^(ok|WARN)   *` + check).MatchString(out) {
				s.t.Errorf("%s is not checked in the pod:\n%s", check, out)
			}
		}
		s.Observe("in the pod: %s: %s", c[1], regexp.MustCompile(`(?m)^\d+ checks: .*$`).FindString(out))
	}
}
