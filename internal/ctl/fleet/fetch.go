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
	"strings"
	"syscall"
	"unicode"
)

// maxPage bounds what is read of a page, in bytes. /metrics has some 20 KiB.
const maxPage = 8 << 20

// Fetch asks for /readyz and /metrics, one after the other, until ctx is done.
// The error says why the node could not be asked, and what to look at; a node
// that is not healthy is no error.
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
		return State{}, n.stranger("/metrics", "%d %s", status, http.StatusText(status))
	}
	s, err := parseMetrics(page)
	if err != nil {
		return State{}, n.stranger("/metrics", "%w", err)
	}
	s.Healthy = readyz.Ready
	for _, c := range readyz.Checks {
		if !c.OK {
			s.Reasons = append(s.Reasons, printable(c.Name+": "+c.Reason))
		}
	}
	return s, nil
}

// readyz is what /readyz says as JSON.
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
		return r, n.stranger("/readyz", "%d %s", status, http.StatusText(status))
	}
	if err := json.Unmarshal(page, &r); err != nil {
		return r, n.stranger("/readyz", "no JSON")
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

// unreachable puts a network's error in words that say what to do.
func (n Node) unreachable(err error) error {
	var dns *net.DNSError
	var timeout net.Error
	switch {
	case errors.Is(err, context.Canceled):
		return context.Canceled
	case errors.Is(err, syscall.ECONNREFUSED):
		return errors.New("connection refused: is trousseau running there, and is this its --ops-addr? By default that is on 127.0.0.1 alone")
	case errors.As(err, &dns) && dns.IsNotFound:
		return errors.New("no such host: see whether the name is right")
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return errors.New("no answer in time: see whether the node is up, and a firewall between")
	}
	var asked *url.Error
	if errors.As(err, &asked) {
		err = asked.Err
	}
	return errors.New(printable(err.Error()))
}

// stranger is the error for pages that are somebody else's.
func (n Node) stranger(page, format string, args ...any) error {
	return fmt.Errorf("%s: %w: is this trousseau's --ops-addr, of this version?", page, fmt.Errorf(format, args...))
}

// printable keeps what a node says from moving a terminal's cursor.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s)
}
