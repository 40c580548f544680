// SPDX-License-Identifier: Apache-2.0

package reencrypt

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
	"unicode"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// tries is how often an answer is asked for again that is about one object, such
// as a conflict: another try may help, waiting for long does not.
const tries = 6

// outOfReach is an API server that has not answered for too long.
type outOfReach struct{ error }

func (e outOfReach) Unwrap() error { return e.error }

// persist calls until there is an answer that does not change any more. An error
// is either that of ctx, or an outOfReach, or says something about the request.
// Before each call it waits for its turn, which at a low rate may take longer than
// an API server may be silent.
func (c *cluster) persist(ctx context.Context, turn, call func(context.Context) error) error {
	var silent time.Time // since when there is no answer
	for try := 1; ; try++ {
		if err := turn(ctx); err != nil {
			return err
		}
		began := time.Now()
		attempt, cancel := context.WithTimeout(ctx, c.patience)
		err := call(attempt)
		cancel()
		switch {
		case err == nil || ctx.Err() != nil:
			return err
		case apierrors.IsUnauthorized(err):
			return outOfReach{fmt.Errorf("the API server no longer accepts the kubeconfig's credentials: %w", err)}
		case unanswered(err):
			if silent.IsZero() {
				silent = began
			}
			if time.Since(silent) > c.patience {
				return outOfReach{fmt.Errorf("the API server has not answered for %s: %w", c.patience, err)}
			}
		case apierrors.IsConflict(err) || apierrors.IsInternalError(err):
			silent = time.Time{}
			if try == tries {
				return err
			}
		default:
			return err
		}
		if err := pause(ctx, try); err != nil {
			return err
		}
	}
}

// unanswered reports whether err says something about the way to the API server,
// or how busy it is, and nothing about the request.
func unanswered(err error) bool {
	var status apierrors.APIStatus
	return !errors.As(err, &status) || apierrors.IsServiceUnavailable(err) || apierrors.IsTooManyRequests(err) ||
		apierrors.IsServerTimeout(err) || apierrors.IsTimeout(err) ||
		status.Status().Code == 502 || status.Status().Code == 504
}

// pause waits from 100 ms on, twice as long each time, up to 5 s.
func pause(ctx context.Context, try int) error {
	const longest = 5 * time.Second
	d := min(100*time.Millisecond<<min(try-1, 10), longest)
	timer := time.NewTimer(d/2 + rand.N(d/2))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// reason is why a request failed, on one line. What the API server says of a field
// that is not valid may quote the field.
func reason(err error) string {
	text := err.Error()
	var status apierrors.APIStatus
	if apierrors.IsInvalid(err) && errors.As(err, &status) {
		var fields []string
		if details := status.Status().Details; details != nil {
			for _, cause := range details.Causes {
				fields = append(fields, cause.Field)
			}
		}
		text = "not valid any more: " + strings.Join(fields, ", ")
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
}
