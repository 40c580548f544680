// SPDX-License-Identifier: Apache-2.0

package vault

import "time"

func init() { dialTimeout, handshakeTimeout = 6*time.Second, 6*time.Second }

var ConnectBy = connect

// SetHandshakeTimeout changes the limit until restore is called.
func SetHandshakeTimeout(d time.Duration) (restore func()) {
	old := handshakeTimeout
	handshakeTimeout = d
	return func() { handshakeTimeout = old }
}
