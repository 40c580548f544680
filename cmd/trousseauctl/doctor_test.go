// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
)

// In trousseau's container, its flags are doctor's defaults.
func TestFlagsOfTrousseau(t *testing.T) {
	const defaults = "/etc/trousseau/config.yaml unix:///run/trousseau/kms.sock [127.0.0.1:8095] 2.5s"
	for cmdline, want := range map[string]string{
		"/trousseau": defaults,
		"/trousseau --config-file-path=/c.yaml --listen-addr=unix:///s --takeover --ops-addr=10.0.0.1:1 --request-timeout=4s": "/c.yaml unix:///s [10.0.0.1:1] 4s",
		"trousseau -config-file-path /c.yaml -takeover -listen-addr /s -ops-addr :9 --request-timeout 4s":                     "/c.yaml /s [127.0.0.1:9] 4s",
		"/trousseau --ops-addr=[::]:9":                            strings.Replace(defaults, "8095", "9", 1),
		"/trousseau --ops-addr=":                                  strings.Replace(defaults, "[127.0.0.1:8095]", "[]", 1),
		"/sbin/init --listen-addr=/s":                             defaults,
		"/trousseau-agent --config-file-path=/c.yaml":             defaults,
		"/trousseau --timeout=1s --health-addr=/h --socket=/s -v": defaults,
	} {
		flags := newDoctor().Flags()
		if err := takeOver(flags, []byte(strings.ReplaceAll(cmdline, " ", "\x00")+"\x00")); err != nil {
			t.Errorf("%s: %v", cmdline, err)
		}
		var got []string
		for _, name := range []string{"config", "socket", "ops", "request-timeout"} {
			got = append(got, flags.Lookup(name).Value.String())
		}
		if all := strings.Join(got, " "); all != want {
			t.Errorf("%s: got %s, want %s", cmdline, all, want)
		}
	}
	flags := newDoctor().Flags()
	if err := flags.Parse([]string{"--config=mine", "--ops="}); err != nil {
		t.Fatal(err)
	}
	err := takeOver(flags, []byte("/trousseau\x00--config-file-path=/c.yaml\x00--ops-addr=:9\x00--listen-addr=/s"))
	if got := flags.Lookup("config").Value.String() + flags.Lookup("ops").Value.String() + flags.Lookup("socket").Value.String(); err != nil || got != "mine[]/s" {
		t.Errorf("with flags of its own: %s, %v", got, err)
	}
	if err := takeOver(flags, []byte("/trousseau\x00--request-timeout=soon")); err == nil {
		t.Error("a wrong value is not reported")
	}
}
