// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/trousseau-io/trousseau/internal/ctl/apiserver"
	"github.com/trousseau-io/trousseau/internal/ctl/text"
)

// apiServer asks kube-apiserver whether it can use the plugin.
func (e *examination) apiServer(ctx context.Context) {
	if e.Kubeconfig == "" {
		return
	}
	var s *apiserver.Server
	e.check(ctx, "kubeconfig", e.Kubeconfig, func(context.Context) outcome {
		var err error
		if s, err = dial(e.Kubeconfig, e.Context); err != nil {
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

// dial makes a client from a context of the kubeconfig in file. It does no network I/O.
func dial(file, context string) (*apiserver.Server, error) {
	config, err := apiserver.Kubeconfig(file, context)
	if err != nil {
		return nil, err
	}
	s, err := apiserver.New(config, config.Host)
	if err != nil {
		return nil, errors.New("its server is not an address, or its certificates are unusable")
	}
	return s, nil
}

// answer is the status code in an error that kube-apiserver answered; "" for any
// other error.
func answer(err error) string {
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		return fmt.Sprint(status.Status().Code)
	}
	return ""
}

const seeLog = "Read kube-apiserver's log."

func livez(ctx context.Context, s *apiserver.Server) outcome {
	err := s.Livez(ctx)
	switch {
	case err == nil:
		return ok("it is live")
	case apierrors.IsUnauthorized(err):
		return fail("Give a kubeconfig with valid credentials.", "kube-apiserver does not accept the credentials (401)")
	case apierrors.IsForbidden(err):
		return ok("it answers; this user may not read /livez")
	case answer(err) != "":
		return fail(seeLog, "/livez: %s", answer(err))
	}
	return fail("Check that kube-apiserver runs. If Secrets are encrypted, it does not become ready without Trousseau.", "%s: %s", s.URL(), reason(err))
}

func providers(ctx context.Context, s *apiserver.Server) outcome {
	err := s.KMSProviders(ctx)
	switch {
	case err == nil:
		return ok("kube-apiserver can use its KMS plugins")
	case apierrors.IsForbidden(err):
		return warn("Grant get on the nonResourceURLs /readyz/* and /metrics, or use an administrator's kubeconfig.", "this user may not read /readyz/kms-providers (403)")
	case apierrors.IsNotFound(err):
		return fail("Start kube-apiserver with --encryption-provider-config. If the file has changed and is not reloaded, restart kube-apiserver.", "kube-apiserver has no KMS plugin (404)")
	case answer(err) != "":
		return fail("Read its log: it names the plugin and the plugin's answer.", "kube-apiserver cannot use one of its KMS plugins (%s)", answer(err))
	}
	return fail(seeLog, "/readyz/kms-providers: %s", reason(err))
}

// statusInterval is how often kube-apiserver asks a plugin for its key_id, one
// minute (kmsv2PluginHealthzPositiveInterval in
// pkg/server/options/encryptionconfig/config.go), and half a minute to spare.
const statusInterval = 90 * time.Second

// announced compares the key_id that kube-apiserver received last with the one that
// the plugin announces now.
func (e *examination) announced(ctx context.Context, s *apiserver.Server) outcome {
	if e.plugin == nil {
		return skip("no --socket to compare with")
	}
	ids, err := s.KeyIDs(ctx)
	switch {
	case err == nil:
	case apierrors.IsForbidden(err):
		return warn("Grant get on the nonResourceURL /metrics, or use an administrator's kubeconfig.", "this user may not read /metrics (403)")
	case errors.Is(err, apiserver.ErrNotMetrics):
		return fail("Check what listens there.", "/metrics is not in the Prometheus text format")
	case answer(err) != "":
		return fail(seeLog, "/metrics: %s", answer(err))
	default:
		return fail(seeLog, "/metrics: %s", reason(err))
	}
	told := e.told(ids)
	age := time.Since(told.At)
	switch {
	case told.Hash == "":
		return fail("Check that EncryptionConfiguration lists the plugin, and that kube-apiserver has loaded it.", "kube-apiserver has not asked this plugin yet")
	case told.Hash == e.plugin.Hash:
		return ok("kube-apiserver received the same key_id %s ago", text.Span(age))
	case age < statusInterval:
		return warn("Run doctor again in 90 seconds, after kube-apiserver has asked again.", "kube-apiserver received another key_id %s ago", text.Span(age))
	}
	return fail("Check that it asks this plugin at all, and read kube-apiserver's log.", "kube-apiserver received another key_id, and has not asked again for %s", text.Span(age))
}

// told is what kube-apiserver received last from our plugin. Where the provider's name
// is not known, a provider with the plugin's key_id is taken for it.
func (e *examination) told(ids apiserver.KeyIDs) (last apiserver.Told) {
	for name, t := range ids.Told {
		switch {
		case e.names == nil && t.Hash == e.plugin.Hash:
			return t
		case (e.names == nil || slices.Contains(e.names, name)) && t.At.After(last.At):
			last = t
		}
	}
	return last
}
