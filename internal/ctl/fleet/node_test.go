// SPDX-License-Identifier: Apache-2.0

package fleet_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/trousseau-io/trousseau/internal/ctl/fleet"
)

func TestParseNode(t *testing.T) {
	for _, good := range []string{
		"127.0.0.1:8095", "10.0.0.1", "cp-1.example", "cp-1.example:80", "[2001:db8::1]:8095", "2001:db8::1", "[2001:db8::1]",
		"http://cp-1", "https://cp-1.example/",
	} {
		if n, err := fleet.ParseNode(good); err != nil || n.String() != good {
			t.Errorf("%s: %v, %v", good, n, err)
		}
	}
	for _, bad := range []string{"", ":8095", "cp-1:", "ftp://cp-1", "http://", "http://user:secret@cp-1", "http://cp-1/metrics", "cp-1/metrics", "http://cp-1?x=y", "a b"} {
		want := fmt.Sprintf("address %q: want host:port or http://host:port, such as 127.0.0.1:8095", bad)
		if _, err := fleet.ParseNode(bad); err == nil || err.Error() != want {
			t.Errorf("%q: got %v, want %s", bad, err, want)
		}
	}
}

func TestReadNodes(t *testing.T) {
	got, err := fleet.ReadNodes(strings.NewReader("# control plane\n10.0.0.1\n\n  10.0.0.2:80 # the new one\r\n10.0.0.1:8095\n"))
	if err != nil || fmt.Sprint(got[0], got[1]) != "10.0.0.1 10.0.0.2:80" || len(got) != 2 {
		t.Errorf("got %v, %v", got, err)
	}
	for text, want := range map[string]string{
		"a\nb c\n":     "line 2: want one address per line",
		"a\nftp://b\n": `line 2: address "ftp://b": want host:port or http://host:port, such as 127.0.0.1:8095`,
	} {
		if _, err := fleet.ReadNodes(strings.NewReader(text)); err == nil || err.Error() != want {
			t.Errorf("%q: got %v, want %s", text, err, want)
		}
	}
}
