// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// newLogger writes to w. Repetitions of a message beyond a hundred in a second
// are thinned out, because during an outage every request fails the same way.
func newLogger(o options, w io.Writer) *zap.Logger {
	ec := zap.NewProductionEncoderConfig()
	ec.TimeKey = "time"
	ec.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	ec.EncodeDuration = zapcore.StringDurationEncoder
	encoder := zapcore.NewJSONEncoder(ec)
	if o.logFormat == "console" {
		encoder = zapcore.NewConsoleEncoder(ec)
	}
	core := zapcore.NewCore(encoder, zapcore.Lock(zapcore.AddSync(w)), o.logLevel)
	return zap.New(zapcore.NewSamplerWithOptions(core, time.Second, 100, 100))
}
