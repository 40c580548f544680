// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain lets scripts execute the test binary as trousseau itself.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"trousseau": main})
}

// TestScripts runs the stories of testdata/script: whole processes, a real
// socket, real files, and a fake Vault.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		Setup:               setUpStory,
		Cmds:                storyCommands,
		RequireExplicitExec: true,
		Condition:           storyCondition,
	})
}
