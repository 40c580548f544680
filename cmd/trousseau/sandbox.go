// SPDX-License-Identifier: Apache-2.0

package main

import (
	"path/filepath"

	"go.uber.org/zap"

	"github.com/trousseau-io/trousseau/internal/daemon/sandbox"
)

// denyWriting drops the right to write and execute files, unless --sandbox=false.
// A failure is logged only: a process that can serve should serve.
func denyWriting(o options, log *zap.Logger) {
	if !o.sandbox {
		log.Info("sandbox disabled")
		return
	}
	dirs := []string{filepath.Dir(o.socket)}
	if own := filepath.Dir(o.health); o.health != "" && own != dirs[0] {
		dirs = append(dirs, own)
	}
	version, err := sandbox.DenyWriting(dirs...)
	if err != nil {
		log.Warn("sandbox unavailable: files remain writable and executable", zap.Error(err))
		return
	}
	log.Info("sandbox enforced", zap.Strings("writable", dirs), zap.Int("landlock_version", version))
}
