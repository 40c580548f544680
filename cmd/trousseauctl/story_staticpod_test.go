// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// revision TEMPLATE NAME writes NAME.yaml as the chart renders the template with
// mode=installer, and puts its revision into the variable NAME.
func cmdRevision(ts *testscript.TestScript, neg bool, args []string) {
	const placeholder = "REVISION-OF-THIS-MANIFEST"
	text := strings.TrimSpace(os.Expand(ts.ReadFile(args[0]), ts.Getenv))
	sum := sha256.Sum256([]byte(text))
	ts.Setenv(args[1], hex.EncodeToString(sum[:])[:10])
	text = strings.ReplaceAll(text, placeholder, ts.Getenv(args[1])) + "\n"
	ts.Check(os.WriteFile(ts.MkAbs(args[1]+".yaml"), []byte(text), 0o600))
}
