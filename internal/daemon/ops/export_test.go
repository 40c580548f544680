// SPDX-License-Identifier: Apache-2.0

package ops

// Addr returns the current address, with the chosen port for port 0; "" if there is
// none.
func (s *Server) Addr() string {
	if s.listener == nil {
		return ""
	}
	return s.listener.Addr().String()
}
