// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/trousseau-io/trousseau/internal/ctl/audit"
	"github.com/trousseau-io/trousseau/internal/ctl/audit/page"
)

// pageFile is the file of --html. It is written under a temporary name, created
// before the work begins so that an error shows early, and then renamed, so that an
// existing report is replaced as a whole or not at all. A nil *pageFile does nothing.
type pageFile struct {
	name, title string
	temp        *os.File
}

func newPageFile(name, title string) (*pageFile, error) {
	if name == "" {
		return nil, nil
	}
	temp, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-")
	if err != nil {
		return nil, fmt.Errorf("writing --html: %w", err)
	}
	return &pageFile{name, title, temp}, nil
}

// write writes the report. Only the user can read the file: it names objects.
func (p *pageFile) write(report audit.Report) error {
	if p == nil {
		return nil
	}
	if err := page.Write(p.temp, report, page.Options{Title: p.title, Version: version}); err != nil {
		return fmt.Errorf("writing --html: %w", err)
	}
	if err := p.temp.Close(); err != nil {
		return fmt.Errorf("writing --html: %w", err)
	}
	return os.Rename(p.temp.Name(), p.name)
}

// discard removes the temporary file, if write has not renamed it.
func (p *pageFile) discard() {
	if p != nil {
		_ = p.temp.Close()
		_ = os.Remove(p.temp.Name())
	}
}
