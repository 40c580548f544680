// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"

	"k8s.io/kms/pkg/util"

	"github.com/trousseau-io/trousseau/internal/ctl/text"
)

// Endpoint is where a plugin listens, as EncryptionConfiguration names it.
type Endpoint struct {
	text    string
	address string // for net.Dial; one that begins with @ is abstract
}

// ParseEndpoint reads an endpoint as kube-apiserver does: unix:///a/path, or
// unix:///@name for an abstract socket.
func ParseEndpoint(endpoint string) (Endpoint, error) {
	address, err := util.ParseEndpoint(endpoint)
	if err != nil || (!strings.HasPrefix(address, "/") && !strings.HasPrefix(address, "@")) {
		return Endpoint{}, fmt.Errorf("endpoint %q: want unix:// and an absolute path, as in EncryptionConfiguration, such as unix:///run/trousseau/kms.sock", endpoint)
	}
	return Endpoint{endpoint, address}, nil
}

// String returns the text that was parsed.
func (e Endpoint) String() string { return e.text }

func (e Endpoint) abstract() bool { return strings.HasPrefix(e.address, "@") }

func (e Endpoint) dial(ctx context.Context) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "unix", e.address)
}

// reachable tries to connect. Its error says what to do.
func (e Endpoint) reachable(ctx context.Context) error {
	conn, err := e.dial(ctx)
	if err == nil {
		return conn.Close()
	}
	advice := "start the plugin"
	switch {
	case errors.Is(err, syscall.ENOENT):
		advice = "start the plugin, or give the endpoint that is in EncryptionConfiguration"
	case errors.Is(err, syscall.ECONNREFUSED):
		advice = "no process listens on the socket: start the plugin again"
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		advice = "run this command as the user that kube-apiserver runs as"
	}
	return fmt.Errorf("connecting to %s: %w: %s", e, text.Errno(err), advice)
}
