// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"syscall"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// server is kube-apiserver, asked with the credentials of a kubeconfig.
type server struct {
	base   string
	client *http.Client
}

// apiServer asks kube-apiserver what it makes of the plugin.
func (e *examination) apiServer(ctx context.Context) {
	if e.Kubeconfig == "" {
		return
	}
	var s server
	e.check(ctx, "kubeconfig", e.Kubeconfig, func(context.Context) outcome {
		var err error
		if s, err = dial(e.Kubeconfig); err != nil {
			return fail("Give the path of one that works with kubectl.", "%s", reason(err))
		}
		return ok("for %s", s.base)
	})
	e.check(ctx, "apiserver", "", func(ctx context.Context) outcome { return s.livez(ctx) }, ground("kubeconfig", e.Kubeconfig))
	e.check(ctx, "apiserver-kms", "", func(ctx context.Context) outcome { return s.providers(ctx) }, "apiserver")
	grounds := []string{"apiserver-kms"}
	if e.Socket != "" {
		grounds = append(grounds, ground("plugin-status", e.plainSocket()))
	}
	e.check(ctx, "apiserver-key-id", "", func(ctx context.Context) outcome { return e.announced(ctx, s) }, grounds...)
}

// dial reads a kubeconfig.
func dial(file string) (server, error) {
	config, err := clientcmd.BuildConfigFromFlags("", file)
	if err != nil {
		// What a parser says may quote the file, which holds a secret.
		var errno syscall.Errno
		if errors.As(err, &errno) {
			return server{}, errno
		}
		return server{}, errors.New("it is no kubeconfig with a current context")
	}
	base, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return server{}, errors.New("its server is no address")
	}
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return server{}, errors.New("its certificates cannot be used")
	}
	return server{base.String(), client}, nil
}

// maxPage bounds what is read of a page, in bytes. A large cluster's /metrics has
// tens of MiB.
const maxPage = 128 << 20

func (s server) get(ctx context.Context, page string) (status int, body []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.base+page, nil)
	if err != nil {
		return 0, nil, err
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxPage))
	return resp.StatusCode, body, err
}

func (s server) livez(ctx context.Context) outcome {
	status, _, err := s.get(ctx, "/livez")
	switch {
	case err != nil:
		return fail("See whether kube-apiserver runs: without Trousseau it does not become ready where Secrets are encrypted.", "%s: %s", s.base, reason(err))
	case status == http.StatusUnauthorized:
		return fail("Give a kubeconfig whose credentials are still valid.", "kube-apiserver does not know who asks (401)")
	case status == http.StatusForbidden:
		return ok("it answers; /livez may not be read")
	case status != http.StatusOK:
		return fail("See kube-apiserver's log.", "/livez: %d %s", status, http.StatusText(status))
	}
	return ok("it lives")
}

func (s server) providers(ctx context.Context) outcome {
	status, _, err := s.get(ctx, "/readyz/kms-providers")
	switch {
	case err != nil:
		return fail("See kube-apiserver's log.", "/readyz/kms-providers: %s", reason(err))
	case status == http.StatusForbidden:
		return warn("Let who asks get the nonResourceURLs /readyz/* and /metrics, or use an administrator's kubeconfig.", "/readyz/kms-providers may not be read (403)")
	case status == http.StatusNotFound:
		return fail("Start kube-apiserver with --encryption-provider-config, or again if the file has changed and it does not reload it.", "kube-apiserver has no KMS plugin (404)")
	case status != http.StatusOK:
		return fail("See its log, which names the plugin and what it answered.", "kube-apiserver cannot use one of its KMS plugins (%d)", status)
	}
	return ok("kube-apiserver can use its KMS plugins")
}

// The metric is that of k8s.io/apiserver's pkg/storage/value/encrypt/envelope/metrics.
const lastKeyID = "apiserver_envelope_encryption_key_id_hash_status_last_timestamp_seconds"

// statusInterval is how often kube-apiserver asks a plugin for its key_id
// (kmsv2PluginHealthzPositiveInterval in
// pkg/server/options/encryptionconfig/config.go), with some time to spare.
const statusInterval = 90 * time.Second

// announced compares the key_id that kube-apiserver was told last with what the
// plugin says now.
func (e *examination) announced(ctx context.Context, s server) outcome {
	if e.plugin == nil {
		return skip("there is no --socket to compare with")
	}
	status, page, err := s.get(ctx, "/metrics")
	switch {
	case err != nil:
		return fail("See kube-apiserver's log.", "/metrics: %s", reason(err))
	case status == http.StatusForbidden:
		return warn("Let who asks get the nonResourceURL /metrics, or use an administrator's kubeconfig.", "/metrics may not be read (403)")
	case status != http.StatusOK:
		return fail("See kube-apiserver's log.", "/metrics: %d %s", status, http.StatusText(status))
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(page))
	if err != nil {
		return fail("See what listens there.", "/metrics: not in Prometheus' text format")
	}
	hash, at := e.last(families[lastKeyID])
	age := time.Since(at)
	switch {
	case hash == "":
		return fail("See that EncryptionConfiguration has the plugin, and that kube-apiserver has loaded it.", "kube-apiserver has not asked this plugin yet")
	case hash == e.plugin.Hash:
		return ok("kube-apiserver was told the same key_id, %s ago", span(age))
	case age < statusInterval:
		return warn("Run this again in a minute and a half, when kube-apiserver has asked again.", "kube-apiserver was told another key_id, %s ago", span(age))
	}
	return fail("See whether it asks this plugin at all, and kube-apiserver's log.", "kube-apiserver was told another key_id, and has not asked for %s", span(age))
}

// last returns the key_id's hash that the plugin announced last. Where it is not
// known which provider is the plugin, one that announces the same is.
func (e *examination) last(family *dto.MetricFamily) (hash string, at time.Time) {
	type said struct {
		hash string
		at   time.Time
	}
	all := map[string]said{} // by provider
	for _, m := range family.GetMetric() {
		labels := map[string]string{}
		for _, l := range m.GetLabel() {
			labels[l.GetName()] = l.GetValue()
		}
		provider := labels["provider_name"]
		if t := time.UnixMilli(int64(m.GetGauge().GetValue() * 1000)); t.After(all[provider].at) {
			all[provider] = said{labels["key_id_hash"], t}
		}
	}
	if e.provider != "" {
		s := all[e.provider]
		return s.hash, s.at
	}
	for _, s := range all {
		if s.hash == e.plugin.Hash {
			return s.hash, s.at
		}
		if s.at.After(at) {
			hash, at = s.hash, s.at
		}
	}
	return hash, at
}
