// SPDX-License-Identifier: Apache-2.0

package apiservertest

import "testing"

// Start is New for tests: it fails the test on error and closes the server at the
// end of the test.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}
