// SPDX-License-Identifier: Apache-2.0

package ops

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// RegisterBuildInfo adds trousseau_build_info, a constant 1 whose labels say which build this is: the given version and
// source revision, and the Go version it was compiled with.
func RegisterBuildInfo(reg prometheus.Registerer, version, revision string) error {
	info := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "trousseau_build_info",
		Help: "A constant 1, labelled with the version, source revision and Go version of this build.",
		ConstLabels: prometheus.Labels{
			"version":   version,
			"revision":  revision,
			"goversion": runtime.Version(),
		},
	}, func() float64 { return 1 })
	if err := reg.Register(info); err != nil {
		return fmt.Errorf("registering build info: %w", err)
	}
	return nil
}

// RegisterProcess adds the Go runtime's and the process's own metrics under their usual names, go_* and process_*.
func RegisterProcess(reg prometheus.Registerer) error {
	err := errors.Join(
		reg.Register(collectors.NewGoCollector()),
		reg.Register(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})),
	)
	if err != nil {
		return fmt.Errorf("registering process metrics: %w", err)
	}
	return nil
}
