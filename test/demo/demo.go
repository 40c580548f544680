// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"k8s.io/klog/v2"
	"k8s.io/klog/v2/textlogger"
	kmsservice "k8s.io/kms/pkg/service"

	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
	"github.com/trousseau-io/trousseau/test/apiserver"
	"github.com/trousseau-io/trousseau/test/harness/agent"
	"github.com/trousseau-io/trousseau/test/harness/plugin"
)

const (
	// keyName is the transit key, in the mount transit.
	keyName = "trousseau-kms-vault"
	// provider is the plugin's name in EncryptionConfiguration.
	provider = "trousseau"
)

// demo is everything that takes part, and the findings so far.
type demo struct {
	*screen
	findings []finding

	ctx    context.Context // of what runs beside the story: the API servers
	cancel context.CancelFunc
	binary string
	dir    string
	klog   *os.File // log of kube-apiserver's code

	vault  *vaulttest.Server
	key    *vaulttest.Key
	token  string // the one in config.yaml
	plugin *plugin.Process
	kms    kmsservice.Service // kube-apiserver's client, for asking Status ourselves
	api    *apiserver.Server
	load   *traffic

	keyID   string            // as Status last announced it
	secrets map[string][]byte // the bytes for etcd, by name
}

// newDemo makes a directory, and a Vault with a transit key in it.
func newDemo(ctx context.Context, binary string, s *screen) (*demo, error) {
	binary, err := filepath.Abs(binary)
	if err != nil {
		return nil, err
	}
	server, err := vaulttest.New(vaulttest.Options{})
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "trousseau-demo-")
	if err != nil {
		server.Close()
		return nil, fmt.Errorf("making a directory for the demo: %w", err)
	}
	d := &demo{
		screen: s, binary: binary, dir: dir,
		vault: server, key: server.CreateKey(keyName), secrets: map[string][]byte{},
	}
	d.ctx, d.cancel = context.WithCancel(ctx)
	if d.klog, err = os.Create(filepath.Join(dir, "kube-apiserver.log")); err != nil {
		d.close(true)
		return nil, err
	}
	klog.SetLogger(textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(d.klog))))
	d.title("Trousseau between kube-apiserver and Vault",
		"kube-apiserver: its own KMS v2 code (k8s.io/apiserver), in this process",
		"trousseau:      the real binary, "+binary+", in a process of its own",
		"Vault:          a fake in this process at "+server.URL()+", with transit keys, versions, tokens and policies",
		"files:          "+dir)
	return d, nil
}

// close stops what is still running, and removes the directory if remove is set.
func (d *demo) close(remove bool) {
	if d.load != nil {
		d.load.stop()
	}
	if d.plugin != nil {
		// The last chapter has reported how it ended.
		_ = d.plugin.Stop()
	}
	d.cancel()
	d.vault.Close()
	klog.ClearLogger()
	if d.klog != nil {
		// A lost last line of this log changes no finding.
		_ = d.klog.Close()
	}
	if remove {
		// The demo is over: a directory left behind in /tmp is harmless.
		_ = os.RemoveAll(d.dir)
	}
}

// render writes config.yaml with this token.
func (d *demo) render(token string) error {
	d.token = token
	return agent.Render(d.plugin.ConfigFile(), d.config().String())
}

// config is a good config.yaml.
func (d *demo) config() agent.Template {
	return agent.Template{KeyNames: []string{keyName}, Address: d.vault.URL(), Token: d.token}
}

// generation is the number of the generation in use, from /metrics.
func (d *demo) generation(ctx context.Context) (float64, error) {
	return d.plugin.Metric(ctx, "trousseau_generation")
}

// found adds a line to the table at the end.
func (d *demo) found(ok bool, what, format string, args ...any) {
	d.findings = append(d.findings, finding{ok, what, fmt.Sprintf(format, args...)})
}
