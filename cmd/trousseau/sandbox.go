// SPDX-License-Identifier: Apache-2.0

package main

import (
	"path/filepath"

	"go.uber.org/zap"

	"github.com/trousseau-io/trousseau/internal/config"
	"github.com/trousseau-io/trousseau/internal/daemon/sandbox"
)

// newSandbox returns nil, which gives up nothing, if that is what the flag asks for.
func newSandbox(o options, log *zap.Logger) *sandbox.Sandbox {
	if !o.sandbox {
		log.Info("the sandbox is off, as --sandbox=false asks")
		return nil
	}
	return sandbox.New(sandbox.Options{SocketDir: filepath.Dir(o.socket), Paths: o.sandboxPaths, Logger: log})
}

// confined reads files for the watcher, and gives up reading all others as soon as there is a valid configuration.
// Its methods are for the watcher's one goroutine.
type confined struct {
	box     *sandbox.Sandbox
	main    string // the configuration file
	decided bool
}

// related is [config.References], which with the main file are what must remain readable.
func (c *confined) related(main []byte) []string {
	names := config.References(main)
	if !c.decided && c.box != nil {
		// A file that is half-written, or names another that is not there yet, must not decide.
		if _, err := config.Parse(main, config.ReadFile); err == nil {
			c.box.GiveUpReading(append([]string{c.main}, names...))
			c.decided = true
		}
	}
	return names
}

// read is [config.ReadFile], whose errors say so if they are the sandbox's doing.
func (c *confined) read(name string) ([]byte, error) {
	data, err := config.ReadFile(name)
	return data, c.box.Explain(name, err)
}
