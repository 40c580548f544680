// SPDX-License-Identifier: Apache-2.0

package encryptionconfig_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trousseau-io/trousseau/internal/ctl/encryptionconfig"
)

func TestReplace(t *testing.T) {
	dir := t.TempDir()
	file, link := filepath.Join(dir, "config.yaml"), filepath.Join(dir, "link.yaml")
	if err := os.WriteFile(file, []byte("before"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("config.yaml", link); err != nil {
		t.Fatal(err)
	}
	want := func(text string) {
		t.Helper()
		got, err := os.ReadFile(file)
		if err != nil || string(got) != text {
			t.Errorf("got %q, %v, want %q", got, err, text)
		}
		info, err := os.Stat(file)
		if err != nil || info.Mode() != 0o640 {
			t.Errorf("mode %s, %v", info.Mode(), err)
		}
		if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
			t.Errorf("the link is none any more: %v", err)
		}
		if found, err := os.ReadDir(dir); err != nil || len(found) != 2 {
			t.Errorf("in the directory: %v, %v", found, err)
		}
	}
	if err := encryptionconfig.Replace(link, []byte("before"), []byte("after")); err != nil {
		t.Fatal(err)
	}
	want("after")
	err := encryptionconfig.Replace(file, []byte("before"), []byte("lost"))
	if err == nil || err.Error() != file+" has changed since it was read, and is not written: run this again" {
		t.Errorf("concurrent change: %v", err)
	}
	want("after")
	none := filepath.Join(dir, "none")
	err = encryptionconfig.Replace(none, nil, nil)
	if err == nil || err.Error() != "writing "+none+": no such file or directory; the file is unchanged" {
		t.Errorf("no file: %v", err)
	}
	if strings.Contains(err.Error(), "lstat") {
		t.Error("the error names the system call")
	}
	want("after")
}
