// SPDX-License-Identifier: Apache-2.0

package staticpod

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// ask asks the process of this revision, whoever serves the KMS socket now. The page is
// empty if it has proven the key, and otherwise says why not. The error says why there is
// no answer.
func (k *Keeper) ask(ctx context.Context) (page string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", k.Manifest.Health)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://trousseau/startupz", nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if asked, ok := errors.AsType[*url.Error](err); ok {
		err = asked.Err // without a URL that leads nowhere
	}
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	if resp.StatusCode == http.StatusOK || err != nil {
		return "", err
	}
	text := strings.Join(strings.Fields(string(body)), " ")
	return cmp.Or(text, fmt.Sprint("status ", resp.StatusCode)), nil
}
