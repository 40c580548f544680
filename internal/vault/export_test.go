// SPDX-License-Identifier: Apache-2.0

package vault

import "time"

func init() { dialTimeout, handshakeTimeout = 6*time.Second, 6*time.Second }

var ConnectBy = connect
