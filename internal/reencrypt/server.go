// SPDX-License-Identifier: Apache-2.0

package reencrypt

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"
)

// server is one API server, asked directly.
type server struct {
	url    string
	client rest.Interface
}

func newServer(config *rest.Config, url string) (*server, error) {
	client, err := pages(config, url)
	if err != nil {
		return nil, err
	}
	return &server{url: url, client: client}, nil
}

// answering bounds what one look at one API server takes.
const answering = 30 * time.Second

// view is what an API server says of its plugins, by the metrics of
// apiserver/pkg/storage/value/encrypt/envelope/metrics/metrics.go.
type view struct {
	// id is a hash of its identity.
	id string
	// latest is the hash of the key_id that each provider's plugin has last
	// answered to Status.
	latest map[string]string
	// wrote are the hashes of the key_ids that something was written under.
	wrote map[string]bool
}

func (v view) knows(hash string) bool {
	for _, latest := range v.latest {
		if latest == hash {
			return true
		}
	}
	return false
}

// view asks first how the plugins are. That has the API server ask them for their
// Status if it has not done so within 20 seconds, and fails if the key_id that they
// answer is not the one that is written under (check and rotateDEKOnKeyIDChange in
// apiserver/pkg/server/options/encryptionconfig/config.go).
func (s *server) view(ctx context.Context) (v view, err error) {
	ctx, cancel := context.WithTimeout(ctx, answering)
	defer cancel()
	err = s.client.Get().AbsPath("/readyz/kms-providers").Do(ctx).Error()
	if apierrors.IsNotFound(err) { // KMS v1 beside v2: a page for each provider
		err = s.client.Get().AbsPath("/readyz").Do(ctx).Error()
	}
	if err != nil {
		return v, fmt.Errorf("the API server %s is not ready, see its page /readyz/kms-providers: %s", s.url, reason(err))
	}
	page, err := s.client.Get().AbsPath("/metrics").Stream(ctx)
	if err != nil {
		return v, fmt.Errorf("reading the metrics of the API server %s: %s", s.url, reason(err))
	}
	defer page.Close()
	if v, err = readView(page); err != nil {
		return v, fmt.Errorf("reading the metrics of the API server %s: %w", s.url, err)
	}
	if len(v.latest) == 0 {
		return v, fmt.Errorf("the API server %s has no KMS v2 plugin: give it an EncryptionConfiguration with one", s.url)
	}
	return v, nil
}

const (
	statusMetric = "apiserver_envelope_encryption_key_id_hash_status_last_timestamp_seconds"
	useMetric    = "apiserver_envelope_encryption_key_id_hash_last_timestamp_seconds"
)

// readView reads a page of metrics, of which it keeps but a few lines: there are
// megabytes.
func readView(page io.Reader) (view, error) {
	var kept bytes.Buffer
	lines := bufio.NewScanner(page)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		name, _, _ := strings.Cut(strings.TrimPrefix(lines.Text(), "# TYPE "), "{")
		name, _, _ = strings.Cut(name, " ")
		if name == statusMetric || name == useMetric {
			kept.Write(lines.Bytes())
			kept.WriteByte('\n')
		}
	}
	if err := lines.Err(); err != nil {
		return view{}, err
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(&kept)
	if err != nil {
		return view{}, errors.New("no metrics in Prometheus' text format")
	}
	v := view{latest: make(map[string]string), wrote: make(map[string]bool)}
	newest := make(map[string]float64)
	for _, m := range families[statusMetric].GetMetric() {
		l := labels(m)
		v.id = l["apiserver_id_hash"]
		if provider, at := l["provider_name"], m.GetGauge().GetValue(); at > newest[provider] {
			newest[provider], v.latest[provider] = at, l["key_id_hash"]
		}
	}
	for _, m := range families[useMetric].GetMetric() {
		if l := labels(m); l["transformation_type"] == "to_storage" {
			v.wrote[l["key_id_hash"]] = true
		}
	}
	return v, nil
}

func labels(m *dto.Metric) map[string]string {
	all := make(map[string]string)
	for _, l := range m.GetLabel() {
		all[l.GetName()] = l.GetValue()
	}
	return all
}
