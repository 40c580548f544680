// SPDX-License-Identifier: Apache-2.0

// Package migrate executes the pages in docs/migrate on real servers: clusters that
// come from elsewhere, go back, and leave again, while they are used. `make
// migrate-test` runs it and prints the observations.
//
// A test is a [site] that is taken through the steps of one page. The commands are those
// that the page shows, so that the two cannot differ. Before, during and after each step,
// every API server must be able to read every Secret, and take writes.
package migrate

import (
	"os"
	"testing"

	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// report collects a row from every scenario.
var report testbed.Report

func TestMain(m *testing.M) { os.Exit(testbed.Main(m, &report)) }
