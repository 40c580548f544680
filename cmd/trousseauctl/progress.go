// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"time"

	"github.com/schollz/progressbar/v3"
)

// progress shows how far long work is, in a bar for each step, on a terminal and
// nowhere else. It is used by one goroutine at a time.
type progress struct {
	w    io.Writer // nil where there is nobody to look at it
	step string
	bar  *progressbar.ProgressBar
}

func newProgress(w io.Writer) *progress {
	if _, ok := terminal(w); ok {
		return &progress{w: w}
	}
	return &progress{}
}

// tell shows that done of total is done of a step.
func (p *progress) tell(step string, done, total int64) {
	if p.w == nil {
		return
	}
	if step != p.step {
		p.end()
		p.step = step
		p.bar = progressbar.NewOptions64(total,
			progressbar.OptionSetWriter(p.w),
			progressbar.OptionSetDescription(step),
			progressbar.OptionThrottle(100*time.Millisecond),
			progressbar.OptionSetPredictTime(true),
			progressbar.OptionSetWidth(30),
			progressbar.OptionClearOnFinish(),
		)
	}
	p.bar.ChangeMax64(max(total, 1))
	// A bar that cannot be drawn is no reason to give up.
	_ = p.bar.Set64(done)
}

// end takes the bar away.
func (p *progress) end() {
	if p.bar != nil {
		_ = p.bar.Clear()
		p.bar = nil
	}
}
