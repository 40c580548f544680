// SPDX-License-Identifier: Apache-2.0

package ops

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
)

// Ask returns the text of a page, such as "readyz", of the process at addr, which is like [Options.Addr]. If the page
// does not answer 200, the error contains its text.
func Ask(ctx context.Context, addr, page string) (string, error) {
	text, err := ask(ctx, addr, page)
	if err != nil {
		return "", fmt.Errorf("/%s of %s: %w", page, addr, err)
	}
	return text, nil
}

func ask(ctx context.Context, addr, page string) (string, error) {
	network := "tcp"
	if strings.HasPrefix(addr, "/") {
		network = "unix"
	}
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, addr)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://trousseau/"+page, nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s", resp.Status, strings.TrimSpace(string(text)))
	}
	return string(text), nil
}
