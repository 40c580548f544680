// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/trousseau-io/trousseau/internal/ctl/apiserver"
)

// apiServer asks kube-apiserver what it makes of the plugin.
func (e *examination) apiServer(ctx context.Context) {
	if e.Kubeconfig == "" {
		return
	}
	var s *apiserver.Server
	e.check(ctx, "kubeconfig", e.Kubeconfig, func(context.Context) outcome {
		var err error
		if s, err = dial(e.Kubeconfig); err != nil {
			return fail("Give the path of one that works with kubectl.", "%s", reason(err))
		}
		return ok("for %s", s.URL())
	})
	e.check(ctx, "apiserver", "", func(ctx context.Context) outcome { return livez(ctx, s) }, ground("kubeconfig", e.Kubeconfig))
	e.check(ctx, "apiserver-kms", "", func(ctx context.Context) outcome { return providers(ctx, s) }, "apiserver")
	grounds := []string{"apiserver-kms"}
	if e.Socket != "" {
		grounds = append(grounds, ground("plugin-status", e.plainSocket()))
	}
	e.check(ctx, "apiserver-key-id", "", func(ctx context.Context) outcome { return e.announced(ctx, s) }, grounds...)
}

// dial reads a kubeconfig.
func dial(file string) (*apiserver.Server, error) {
	config, err := apiserver.ReadKubeconfig(file)
	if err != nil {
		return nil, err
	}
	s, err := apiserver.New(config, config.Host)
	if err != nil {
		return nil, errors.New("its server is no address, or its certificates cannot be used")
	}
	return s, nil
}

// answer is the status of an answer that is an error; "" if there was none.
func answer(err error) string {
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		return fmt.Sprint(status.Status().Code)
	}
	return ""
}

const seeLog = "See kube-apiserver's log."

func livez(ctx context.Context, s *apiserver.Server) outcome {
	err := s.Livez(ctx)
	switch {
	case err == nil:
		return ok("it lives")
	case apierrors.IsUnauthorized(err):
		return fail("Give a kubeconfig whose credentials are still valid.", "kube-apiserver does not know who asks (401)")
	case apierrors.IsForbidden(err):
		return ok("it answers; /livez may not be read")
	case answer(err) != "":
		return fail(seeLog, "/livez: %s", answer(err))
	}
	return fail("See whether kube-apiserver runs: without Trousseau it does not become ready where Secrets are encrypted.", "%s: %s", s.URL(), reason(err))
}

func providers(ctx context.Context, s *apiserver.Server) outcome {
	err := s.KMSProviders(ctx)
	switch {
	case err == nil:
		return ok("kube-apiserver can use its KMS plugins")
	case apierrors.IsForbidden(err):
		return warn("Let who asks get the nonResourceURLs /readyz/* and /metrics, or use an administrator's kubeconfig.", "/readyz/kms-providers may not be read (403)")
	case apierrors.IsNotFound(err):
		return fail("Start kube-apiserver with --encryption-provider-config, or again if the file has changed and it does not reload it.", "kube-apiserver has no KMS plugin (404)")
	case answer(err) != "":
		return fail("See its log, which names the plugin and what it answered.", "kube-apiserver cannot use one of its KMS plugins (%s)", answer(err))
	}
	return fail(seeLog, "/readyz/kms-providers: %s", reason(err))
}

// statusInterval is how often kube-apiserver asks a plugin for its key_id
// (kmsv2PluginHealthzPositiveInterval in
// pkg/server/options/encryptionconfig/config.go), with some time to spare.
const statusInterval = 90 * time.Second

// announced compares the key_id that kube-apiserver was told last with what the
// plugin says now.
func (e *examination) announced(ctx context.Context, s *apiserver.Server) outcome {
	if e.plugin == nil {
		return skip("there is no --socket to compare with")
	}
	ids, err := s.KeyIDs(ctx)
	switch {
	case err == nil:
	case apierrors.IsForbidden(err):
		return warn("Let who asks get the nonResourceURL /metrics, or use an administrator's kubeconfig.", "/metrics may not be read (403)")
	case errors.Is(err, apiserver.ErrNotMetrics):
		return fail("See what listens there.", "/metrics: not in Prometheus' text format")
	case answer(err) != "":
		return fail(seeLog, "/metrics: %s", answer(err))
	default:
		return fail(seeLog, "/metrics: %s", reason(err))
	}
	told := e.told(ids)
	age := time.Since(told.At)
	switch {
	case told.Hash == "":
		return fail("See that EncryptionConfiguration has the plugin, and that kube-apiserver has loaded it.", "kube-apiserver has not asked this plugin yet")
	case told.Hash == e.plugin.Hash:
		return ok("kube-apiserver was told the same key_id, %s ago", span(age))
	case age < statusInterval:
		return warn("Run this again in a minute and a half, when kube-apiserver has asked again.", "kube-apiserver was told another key_id, %s ago", span(age))
	}
	return fail("See whether it asks this plugin at all, and kube-apiserver's log.", "kube-apiserver was told another key_id, and has not asked for %s", span(age))
}

// told is what the plugin announced last. Where it is not known which provider is
// the plugin, one that announces the same is.
func (e *examination) told(ids apiserver.KeyIDs) (last apiserver.Told) {
	if e.provider != "" {
		return ids.Told[e.provider]
	}
	for _, t := range ids.Told {
		if t.Hash == e.plugin.Hash {
			return t
		}
		if t.At.After(last.At) {
			last = t
		}
	}
	return last
}
