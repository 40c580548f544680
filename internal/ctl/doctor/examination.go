// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/trousseau-io/trousseau/internal/config"
	"github.com/trousseau-io/trousseau/internal/ctl/fleet"
	"github.com/trousseau-io/trousseau/internal/ctl/text"
	"github.com/trousseau-io/trousseau/internal/ctl/vaultview"
)

// examination holds what the checks have found so far. It is not safe for
// concurrent use.
type examination struct {
	Options
	checks []Check
	// cause maps each check that failed, or was skipped because of a failure, to
	// the check that failed first. The keys are grounds.
	cause map[string]string

	config   *config.Config
	views    []*vaultview.View         // one of each address
	vault    *vaultview.View           // the first that accepts the token
	readable map[string]*vaultview.Key // by name, those that the token may read
	plugin   *fleet.Plugin             // nil until it has answered
	names    []string                  // in EncryptionConfiguration, of the plugin at our socket
}

// step bounds one check, so that one cannot use up the time of all.
const step = 5 * time.Second

// outcome is the result of a check, what it has seen and what to do about it.
type outcome struct {
	result    Result
	seen, fix string
}

func ok(format string, args ...any) outcome {
	return outcome{result: OK, seen: fmt.Sprintf(format, args...)}
}

func warn(fix, format string, args ...any) outcome {
	return outcome{Warn, fmt.Sprintf(format, args...), fix}
}

func fail(fix, format string, args ...any) outcome {
	return outcome{Fail, fmt.Sprintf(format, args...), fix}
}

func skip(format string, args ...any) outcome {
	return outcome{result: Skip, seen: fmt.Sprintf(format, args...)}
}

// ground names a check of one subject for the checks that depend on it.
func ground(check, subject string) string { return strings.TrimSuffix(check+" "+subject, " ") }

// check runs a check, or skips it if one of its grounds has failed.
func (e *examination) check(ctx context.Context, name, subject string, run func(context.Context) outcome, grounds ...string) Result {
	o := e.attempt(ctx, run, grounds)
	key := ground(name, subject)
	switch o.result {
	case Fail:
		e.cause[key] = key
	case Skip:
		// A check that skips itself holds up no other: it does not apply, or its
		// answer is not known.
		if cause := e.blame(grounds); cause != "" {
			e.cause[key] = cause
		}
	}
	e.checks = append(e.checks, Check{
		Name: name, Subject: subject, Result: o.result, Seen: text.Printable(o.seen), Fix: text.Printable(o.fix),
	})
	return o.result
}

func (e *examination) attempt(ctx context.Context, run func(context.Context) outcome, grounds []string) outcome {
	if cause := e.blame(grounds); cause != "" {
		return skip("not checked: depends on %s", cause)
	}
	if ctx.Err() != nil {
		return fail("Raise --timeout, and see above which check took so long.", "not checked: the time is up")
	}
	ctx, cancel := context.WithTimeout(ctx, step)
	defer cancel()
	return run(ctx)
}

// blame returns the failed check because of which a check with these grounds
// cannot run; "" if it can.
func (e *examination) blame(grounds []string) string {
	for _, g := range grounds {
		if cause := e.cause[g]; cause != "" {
			return cause
		}
	}
	return ""
}

// reason words an error of a file or the network briefly. These errors never quote
// content.
func reason(err error) string {
	var errno syscall.Errno
	var asked *url.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer in time"
	case errors.As(err, &errno):
		return errno.Error()
	case errors.As(err, &asked):
		return asked.Err.Error()
	}
	return err.Error()
}
