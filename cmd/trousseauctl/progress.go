// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"time"

	"github.com/schollz/progressbar/v3"
)

// progress shows a bar for each step of long work, if the output is a terminal. It is
// not safe for concurrent use.
type progress struct {
	w    io.Writer // nil if it is not a terminal
	step string
	bar  *progressbar.ProgressBar
}

func newProgress(w io.Writer) *progress {
	if _, ok := terminal(w); ok {
		return &progress{w: w}
	}
	return &progress{}
}

// tell shows that done of total units of a step are done.
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
	// An error in drawing does not matter.
	_ = p.bar.Set64(done)
}

// end removes the bar.
func (p *progress) end() {
	if p.bar != nil {
		_ = p.bar.Clear()
		p.bar = nil
	}
}
