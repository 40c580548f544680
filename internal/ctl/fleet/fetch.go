// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"syscall"

	"github.com/trousseau-io/trousseau/internal/ctl/text"
)

// maxPage is how much of a page is read at most, in bytes. /metrics has about 20 KiB.
const maxPage = 8 << 20

// Fetch gets /readyz and /metrics, one after the other, until ctx is done. The
// error says why the node did not answer, and what to check. An unhealthy node is
// not an error.
func (n Node) Fetch(ctx context.Context) (State, error) {
	readyz, err := n.readyz(ctx)
	if err != nil {
		return State{}, err
	}
	status, page, err := n.get(ctx, "/metrics", "text/plain; version=0.0.4")
	if err != nil {
		return State{}, err
	}
	if status != http.StatusOK {
		return State{}, n.foreign("/metrics", "%d %s", status, http.StatusText(status))
	}
	s, err := parseMetrics(page)
	if err != nil {
		return State{}, n.foreign("/metrics", "%w", err)
	}
	s.Healthy = readyz.Ready
	for _, c := range readyz.Checks {
		if !c.OK {
			s.Reasons = append(s.Reasons, text.Printable(c.Name+": "+c.Reason))
		}
	}
	return s, nil
}

// readyz is the JSON of /readyz.
type readyz struct {
	Ready  bool `json:"ready"`
	Checks []struct {
		Name   string `json:"name"`
		OK     bool   `json:"ok"`
		Reason string `json:"reason"`
	} `json:"checks"`
}

func (n Node) readyz(ctx context.Context) (r readyz, err error) {
	status, page, err := n.get(ctx, "/readyz", "application/json")
	if err != nil {
		return r, err
	}
	if status != http.StatusOK && status != http.StatusServiceUnavailable {
		return r, n.foreign("/readyz", "%d %s", status, http.StatusText(status))
	}
	if err := json.Unmarshal(page, &r); err != nil {
		return r, n.foreign("/readyz", "not JSON")
	}
	return r, nil
}

func (n Node) get(ctx context.Context, page, accept string) (status int, body []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.base+page, nil)
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Accept", accept)
	resp, err := n.client.Do(req)
	if err != nil {
		return 0, nil, n.unreachable(err)
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxPage))
	if err != nil {
		return 0, nil, n.unreachable(err)
	}
	return resp.StatusCode, body, nil
}

// unreachable rewords a network error, and says what to do.
func (n Node) unreachable(err error) error {
	var dns *net.DNSError
	var timeout net.Error
	var known Unreachable
	switch {
	case errors.Is(err, context.Canceled):
		return context.Canceled
	case errors.As(err, &known):
		return known
	case errors.Is(err, syscall.ECONNREFUSED):
		return errors.New("connection refused: check that trousseau is running there and that this is its --ops-addr, which is 127.0.0.1 only by default")
	case errors.As(err, &dns) && dns.IsNotFound:
		return errors.New("no such host: check the name")
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return errors.New("no answer in time: check that the node is up and that no firewall blocks the port")
	}
	var asked *url.Error
	if errors.As(err, &asked) {
		err = asked.Err
	}
	return errors.New(text.Printable(err.Error()))
}

// foreign is the error for a page that another program serves.
func (n Node) foreign(page, format string, args ...any) error {
	return fmt.Errorf("%s: %w: check that this is the --ops-addr of a trousseau of this version", page, fmt.Errorf(format, args...))
}
