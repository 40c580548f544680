// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// KeyIDs is what an API server knows about key_ids, according to its metrics
// (apiserver/pkg/storage/value/encrypt/envelope/metrics/metrics.go).
type KeyIDs struct {
	// Server is a hash of the API server's identity; "" if no plugin has announced
	// a key_id to it.
	Server string
	// Told is the last answer of each provider's plugin to Status.
	Told map[string]Told
	// Written are the hashes of the key_ids that this server has written under.
	Written map[string]bool
}

// Told is a key_id that a plugin has announced.
type Told struct {
	// Hash is sha256: and the digest of the key_id.
	Hash string
	// At is when the plugin announced it.
	At time.Time
}

const (
	statusMetric = "apiserver_envelope_encryption_key_id_hash_status_last_timestamp_seconds"
	useMetric    = "apiserver_envelope_encryption_key_id_hash_last_timestamp_seconds"
)

// ErrNotMetrics means that an answer is not in Prometheus' text format.
var ErrNotMetrics = errors.New("not in Prometheus' text format")

// KeyIDs reads the metrics.
func (s *Server) KeyIDs(ctx context.Context) (KeyIDs, error) {
	page, err := s.client.Get().AbsPath("/metrics").Stream(ctx)
	if err != nil {
		return KeyIDs{}, err
	}
	defer page.Close()
	return readKeyIDs(page)
}

// readKeyIDs keeps only a few lines of the page, which may have megabytes.
func readKeyIDs(page io.Reader) (KeyIDs, error) {
	var kept bytes.Buffer
	lines := bufio.NewScanner(page)
	lines.Buffer(nil, 1<<20)
	untyped := false // there are lines, and none of them declares a type
	for typed := false; lines.Scan(); untyped = !typed {
		typed = typed || strings.HasPrefix(lines.Text(), "# TYPE ")
		name, _, _ := strings.Cut(strings.TrimPrefix(lines.Text(), "# TYPE "), "{")
		name, _, _ = strings.Cut(name, " ")
		if name == statusMetric || name == useMetric {
			kept.Write(lines.Bytes())
			kept.WriteByte('\n')
		}
	}
	if err := lines.Err(); err != nil {
		return KeyIDs{}, err
	}
	if untyped {
		return KeyIDs{}, ErrNotMetrics
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(&kept)
	if err != nil {
		return KeyIDs{}, ErrNotMetrics
	}
	ids := KeyIDs{Told: make(map[string]Told), Written: make(map[string]bool)}
	for _, m := range families[statusMetric].GetMetric() {
		l := labels(m)
		ids.Server = l["apiserver_id_hash"]
		provider, at := l["provider_name"], time.UnixMilli(int64(m.GetGauge().GetValue()*1000))
		if at.After(ids.Told[provider].At) {
			ids.Told[provider] = Told{Hash: l["key_id_hash"], At: at}
		}
	}
	for _, m := range families[useMetric].GetMetric() {
		if l := labels(m); l["transformation_type"] == "to_storage" {
			ids.Written[l["key_id_hash"]] = true
		}
	}
	return ids, nil
}

func labels(m *dto.Metric) map[string]string {
	all := make(map[string]string)
	for _, l := range m.GetLabel() {
		all[l.GetName()] = l.GetValue()
	}
	return all
}
