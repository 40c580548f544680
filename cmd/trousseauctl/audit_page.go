// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/trousseau-io/trousseau/internal/ctl/audit"
	"github.com/trousseau-io/trousseau/internal/ctl/audit/page"
)

// pageFile is the file of --html. It is written under another name first: whether
// that is possible shows before the work begins, and a report that is there
// already is replaced by a whole one or not at all. A nil *pageFile is none.
type pageFile struct {
	name string
	temp *os.File
}

func newPageFile(name string) (*pageFile, error) {
	if name == "" {
		return nil, nil
	}
	temp, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-")
	if err != nil {
		return nil, fmt.Errorf("writing --html: %w", err)
	}
	return &pageFile{name, temp}, nil
}

// write writes the report, for the user's own eyes: it names objects.
func (p *pageFile) write(report audit.Report) error {
	if p == nil {
		return nil
	}
	if err := page.Write(p.temp, report, version); err != nil {
		return fmt.Errorf("writing --html: %w", err)
	}
	if err := p.temp.Close(); err != nil {
		return fmt.Errorf("writing --html: %w", err)
	}
	return os.Rename(p.temp.Name(), p.name)
}

// discard leaves nothing behind if write has not been called.
func (p *pageFile) discard() {
	if p != nil {
		_ = p.temp.Close()
		_ = os.Remove(p.temp.Name())
	}
}
