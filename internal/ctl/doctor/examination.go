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
	"unicode"

	"github.com/trousseau-io/trousseau/internal/config"
	"github.com/trousseau-io/trousseau/internal/ctl/fleet"
	"github.com/trousseau-io/trousseau/internal/ctl/vaultview"
)

// examination is what is known so far.
type examination struct {
	Options
	findings []Finding
	// cause says of each check that was not ok enough to build on, by ground,
	// which one is to blame.
	cause map[string]string

	config   *config.Config
	vault    *vaultview.View       // of the first address that is usable
	latest   map[string]keyVersion // by key
	plugin   *fleet.Plugin         // nil unless it has answered
	provider string                // of EncryptionConfiguration, at our socket
}

// step bounds one check, so that a single one cannot use up the time of all.
const step = 5 * time.Second

// outcome is what a check returns.
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

// ground names a check of one subject for those that build on it.
func ground(check, subject string) string { return strings.TrimSuffix(check+" "+subject, " ") }

// check makes a check, unless one of its grounds is missing.
func (e *examination) check(ctx context.Context, name, subject string, run func(context.Context) outcome, grounds ...string) Result {
	o := e.attempt(ctx, run, grounds)
	key := ground(name, subject)
	switch o.result {
	case Fail:
		e.cause[key] = key
	case Skip:
		// What was skipped for itself, since it does not apply or is not known,
		// holds up nothing.
		if cause := e.blame(grounds); cause != "" {
			e.cause[key] = cause
		}
	}
	e.findings = append(e.findings, Finding{
		Check: name, Subject: subject, Result: o.result, Seen: printable(o.seen), Fix: printable(o.fix),
	})
	return o.result
}

func (e *examination) attempt(ctx context.Context, run func(context.Context) outcome, grounds []string) outcome {
	if cause := e.blame(grounds); cause != "" {
		return skip("not looked at, because of %s", cause)
	}
	if ctx.Err() != nil {
		return fail("Give it more time with --timeout, and see above what took so long.", "not looked at: the time was over")
	}
	ctx, cancel := context.WithTimeout(ctx, step)
	defer cancel()
	return run(ctx)
}

// blame returns which check is at the bottom of it that one cannot be made; ""
// if it can.
func (e *examination) blame(grounds []string) string {
	for _, g := range grounds {
		if cause := e.cause[g]; cause != "" {
			return cause
		}
	}
	return ""
}

// reason is an error of files or the network in few words. None of those quotes
// what was read.
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

// printable keeps what was read somewhere from moving a terminal's cursor.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s)
}
