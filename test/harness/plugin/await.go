// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"fmt"
	"time"
)

// look is how often [Await] looks.
const look = 5 * time.Millisecond

// Await looks until met returns true, and returns nil then. It returns early
// with met's error, and when ctx is done or the bound has passed. What names
// the condition in the error.
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
			return fmt.Errorf("waited %s for %s in vain", within, what)
		}
	}
}
