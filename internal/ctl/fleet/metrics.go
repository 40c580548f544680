// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"bytes"
	"errors"
	"math"
	"strconv"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/trousseau-io/trousseau/internal/ctl/text"
)

// parseMetrics reads the metrics of internal/daemon/live and internal/daemon/ops.
func parseMetrics(page []byte) (s State, err error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(page))
	if err != nil {
		return s, errors.New("not in Prometheus' text format")
	}
	m := metrics(families)
	generation, found := m.value("trousseau_generation")
	if !found {
		return s, errors.New("no metric trousseau_generation")
	}
	if generation >= 0 && generation < math.MaxInt32 { // false for NaN
		s.Generation = int(generation)
	}

	key := m.labels("trousseau_key_info")
	s.Key = Key{Hash: key["key_id_hash"], Name: key["key"], Created: m.time("trousseau_key_version_created_timestamp_seconds")}
	s.Key.Version, _ = strconv.Atoi(key["version"])

	inUse, _ := m.value("trousseau_config_last_reload_successful")
	s.Reload = Reload{
		InUse:   inUse == 1,
		Adopted: m.time("trousseau_config_last_reload_success_timestamp_seconds"),
		Class:   m.labels("trousseau_config_last_reload_error_info")["class"],
	}

	s.Token = Token{
		AccessorHash: m.labels("trousseau_vault_token_info")["accessor_hash"],
		Expires:      m.time("trousseau_vault_token_expiry_timestamp_seconds"),
	}
	if kept, found := m.value("trousseau_vault_token_kept_alive"); found {
		s.Token.KeptBy = NoKeeper
		if kept == 1 {
			s.Token.KeptBy = Trousseau
		}
	}

	s.Proven = m.time("trousseau_last_proof_timestamp_seconds")
	build := m.labels("trousseau_build_info")
	s.Build = Build{Version: build["version"], Revision: build["revision"], Go: build["goversion"]}
	return s, nil
}

// metrics are families by name. Those that we read are gauges with at most one
// sample.
type metrics map[string]*dto.MetricFamily

func (m metrics) sample(name string) *dto.Metric {
	if samples := m[name].GetMetric(); len(samples) > 0 {
		return samples[0]
	}
	return nil
}

func (m metrics) value(name string) (value float64, found bool) {
	sample := m.sample(name)
	if sample.GetGauge() == nil {
		return 0, false
	}
	return sample.GetGauge().GetValue(), true
}

// time returns a gauge in Unix seconds as a time; zero if there is none.
func (m metrics) time(name string) time.Time {
	seconds, found := m.value(name)
	if !found || math.IsNaN(seconds) || math.Abs(seconds) > math.MaxInt32*1000 {
		return time.Time{}
	}
	return time.UnixMilli(int64(math.Round(seconds * 1000))).UTC()
}

func (m metrics) labels(name string) map[string]string {
	all := map[string]string{}
	for _, l := range m.sample(name).GetLabel() {
		all[l.GetName()] = text.Printable(l.GetValue())
	}
	return all
}
