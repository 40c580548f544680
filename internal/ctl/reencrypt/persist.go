// SPDX-License-Identifier: Apache-2.0

package reencrypt

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/trousseau-io/trousseau/internal/ctl/text"
)

// tries is the maximum number of attempts after an error about one object, such as a
// conflict. A retry may help there, but waiting does not.
const tries = 6

// serverLost means that the API server has not answered for too long, or no longer
// accepts our credentials.
type serverLost struct{ error }

func (e serverLost) Unwrap() error { return e.error }

// persist repeats call until it has a final answer. Its error is that of ctx, a
// serverLost, or the answer to the request. Before each call it waits for turn, which
// does not count as silence of the API server.
func (c *cluster) persist(ctx context.Context, turn, call func(context.Context) error) error {
	var silent time.Time // the begin of the first call without an answer
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
			return serverLost{fmt.Errorf("the API server no longer accepts the kubeconfig's credentials: %w", err)}
		case unanswered(err):
			if silent.IsZero() {
				silent = began
			}
			if time.Since(silent) > c.patience {
				return serverLost{fmt.Errorf("the API server has not answered for %s: %w", c.patience, err)}
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

// unanswered reports whether err is about the connection to the API server or its
// load, not about the request.
func unanswered(err error) bool {
	var status apierrors.APIStatus
	return !errors.As(err, &status) || apierrors.IsServiceUnavailable(err) || apierrors.IsTooManyRequests(err) ||
		apierrors.IsServerTimeout(err) || apierrors.IsTimeout(err) ||
		status.Status().Code == 502 || status.Status().Code == 504
}

// pause waits with exponential backoff and jitter: 100 ms at first, at most 5 s.
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

// reason returns why a request failed, on one line, in the API server's own words. Only
// where these quote a value of the object, there is just the kind of the problem
// (ErrorBody in apimachinery/pkg/util/validation/field/errors.go).
func reason(err error) string {
	why := err.Error()
	var status apierrors.APIStatus
	if apierrors.IsInvalid(err) && errors.As(err, &status) && status.Status().Details != nil {
		var fields []string
		for _, cause := range status.Status().Details.Causes {
			said := cause.Message
			switch kind := field.ErrorType(cause.Type); kind {
			case field.ErrorTypeInvalid, field.ErrorTypeTypeInvalid, field.ErrorTypeNotSupported, field.ErrorTypeNotFound, field.ErrorTypeDuplicate:
				said = kind.String()
			}
			if cause.Field != "" {
				fields = append(fields, cause.Field+": "+said)
			}
		}
		if len(fields) > 0 { // an admission policy names no field
			why = "no longer valid: " + strings.Join(fields, "; ")
		}
	}
	return text.Printable(why)
}
