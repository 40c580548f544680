// SPDX-License-Identifier: Apache-2.0

// Package agent writes config.yaml as Vault Agent does: from the documented template,
// replacing the file by rename.
package agent

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Template holds the values that Vault Agent fills into the documented template.
type Template struct {
	KeyNames []string
	Address  string
	Token    string
}

// String returns the rendered file, including the template's blank first line and
// trailing spaces.
func (t Template) String() string {
	var b strings.Builder
	b.WriteString("\n--- \nprovider: vault\nvault:\n  keynames:\n")
	for _, name := range t.KeyNames {
		fmt.Fprintf(&b, "  - %s \n", name)
	}
	fmt.Fprintf(&b, "  address: %s \n  token: %s \n", t.Address, t.Token)
	return b.String()
}

// Render replaces file as Vault Agent does (consul-template's renderer): it writes
// and syncs a temporary file beside it, whose suffix is all digits, and renames it
// over file. The new content is in place when Render returns.
func Render(file, content string) (err error) {
	name := filepath.Join(filepath.Dir(file), strconv.FormatUint(uint64(rand.Uint32()), 10))
	temp, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("rendering %s: %w", file, err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("rendering %s: %w", file, errors.Join(err, os.Remove(name)))
		}
	}()
	_, err = temp.WriteString(content)
	if err := errors.Join(err, temp.Sync(), temp.Close()); err != nil {
		return err
	}
	return os.Rename(name, file)
}
