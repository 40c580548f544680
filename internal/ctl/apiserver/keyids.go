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
	// Configuration is sha256: and the digest of the EncryptionConfiguration file that
	// is loaded; "" if the server does not say.
	Configuration string
	// Uses counts what the server has read from etcd and written to it since its start;
	// nil for an older server, which does not tell resources apart.
	Uses map[Use]float64
}

// Use is how objects are read or written: each value begins with its provider's prefix
// (apiserver/pkg/storage/value/metrics.go).
type Use struct {
	// Resource is named as in EncryptionConfiguration.
	Resource string
	Written  bool
	// Prefix is KMSv2Prefix, a provider's name and a colon; "" or identity in the
	// clear.
	Prefix string
}

// KMSv2Prefix begins the prefix of a KMS v2 provider (kmsTransformerPrefixV2 in
// apiserver/pkg/server/options/encryptionconfig/config.go).
const KMSv2Prefix = "k8s:enc:kms:v2:"

// Told is a key_id that a plugin has announced.
type Told struct {
	// Hash is sha256: and the digest of the key_id.
	Hash string
	// At is when the plugin announced it.
	At time.Time
}

const (
	statusMetric = "apiserver_envelope_encryption_key_id_hash_status_last_timestamp_seconds"
	configMetric = "apiserver_encryption_config_controller_last_config_info"
	useMetric    = "apiserver_storage_transformation_operations_total"
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
		if name == statusMetric || name == configMetric || name == useMetric {
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
	ids := KeyIDs{Told: make(map[string]Told), Uses: make(map[Use]float64)}
	for _, m := range families[statusMetric].GetMetric() {
		l := labels(m)
		ids.Server = l["apiserver_id_hash"]
		provider, at := l["provider_name"], time.UnixMilli(int64(m.GetGauge().GetValue()*1000))
		if at.After(ids.Told[provider].At) {
			ids.Told[provider] = Told{Hash: l["key_id_hash"], At: at}
		}
	}
	for _, m := range families[configMetric].GetMetric() {
		ids.Configuration = labels(m)["hash"]
	}
	for _, m := range families[useMetric].GetMetric() {
		l := labels(m)
		if l["status"] != "OK" {
			continue
		}
		resource, told := l["resource"]
		if !told {
			ids.Uses = nil
			break
		}
		ids.Uses[Use{resource, l["transformation_type"] == "to_storage", l["transformer_prefix"]}] = m.GetCounter().GetValue()
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
