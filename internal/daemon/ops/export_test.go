// SPDX-License-Identifier: Apache-2.0

package ops

// Addr is the address in use, with the port that was picked for port 0; "" while there is none.
func (s *Server) Addr() string {
	if s.listener == nil {
		return ""
	}
	return s.listener.Addr().String()
}
