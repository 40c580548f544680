// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"fmt"
	"time"
)

// look is the polling interval of [Await].
const look = 5 * time.Millisecond

// Await polls until met returns true, then returns nil. It returns an error if met
// does, if ctx is done, or after the given time. The error names the condition with
// what.
func Await(ctx context.Context, within time.Duration, what string, met func(context.Context) (bool, error)) error {
	bounded, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	pace := time.NewTicker(look)
	defer pace.Stop()
	for {
		ok, err := met(bounded)
		if err != nil && bounded.Err() == nil {
			return fmt.Errorf("waiting for %s: %w", what, err)
		}
		if ok && err == nil {
			return nil
		}
		select {
		case <-pace.C:
		case <-bounded.Done():
			if ctx.Err() != nil {
				return fmt.Errorf("waiting for %s: %w", what, context.Cause(ctx))
			}
			return fmt.Errorf("timed out after %s waiting for %s", within, what)
		}
	}
}
