// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/trousseau-io/trousseau/internal/ctl/staticpod"
	"github.com/trousseau-io/trousseau/internal/endpoint"
)

func newKeepStaticPod() *cobra.Command {
	var o staticpod.Options
	var manifest, health string
	var check bool
	cmd := &cobra.Command{
		Use:   "keep-static-pod",
		Short: "Keep Trousseau's static pod and its credentials on this node",
		Long: `The installer of the chart's mode=installer, which runs on each control-plane
node. It moves a new revision of the manifest into kubelet's directory, in one step
and beside the old revision. When the new process has proven the key, it removes the
old revision; until then, the old process serves. It puts back what is removed or
changed by hand, and leaves everything on the node when it ends.

Each revision is a pod APP-REVISION, where REVISION is the digest of its manifest.
Files with another name or another content in kubelet's directory are not touched.

--check only checks a manifest: that it is exactly one Pod and, if it is a revision,
that it is complete. Use it before you move a manifest of mode=staticPod to a node.`,
		Example: `  trousseauctl keep-static-pod --check --manifest trousseau.yaml`,
		Args:    noArguments,
	}
	flags := cmd.Flags()
	flags.StringVar(&manifest, "manifest", "", "`file` with the manifest")
	flags.StringVar(&o.Directory, "directory", "/etc/kubernetes/manifests", "kubelet's manifest `directory`; the manifest is prepared in its parent, in trousseau.d")
	flags.StringVar(&o.Credentials, "credentials", "", "`directory` with files to copy to the node, such as a mounted Secret")
	flags.StringVar(&health, "health-addr", "", "unix socket for /readyz: 200 when the key is proven and no other revision is left; an `address` such as unix:///run/health.sock")
	flags.DurationVar(&o.Poll, "poll", 2*time.Second, "time between two looks at the files")
	flags.BoolVar(&o.Remove, "remove", false, "remove the static pod and the copied credentials from the node")
	flags.BoolVar(&check, "check", false, "check the manifest, print its pod, and exit")
	out := outputFlag(cmd, "KeepStaticPod")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		switch {
		case manifest == "":
			return usageError{errors.New("--manifest is missing: name the file with the manifest")}
		case o.Poll <= 0:
			return usageError{fmt.Errorf("--poll: %s is not a positive duration such as 2s", o.Poll)}
		}
		if health != "" {
			var err error
			if health, err = endpoint.ParsePath(health); err != nil {
				return usageError{fmt.Errorf("--health-addr: %w", err)}
			}
		}
		text, err := os.ReadFile(manifest)
		if err != nil {
			return err
		}
		if o.Manifest, err = staticpod.Parse(text); err != nil {
			return fmt.Errorf("%s: %w", manifest, err)
		}
		if check {
			if o.Manifest.Revision != "" {
				if err := o.Manifest.Verify(); err != nil {
					return fmt.Errorf("%s: %w", manifest, err)
				}
			}
		}
		report := keptPod{o.Manifest.Name, o.Manifest.Namespace, o.Manifest.Revision}
		if !check {
			err := keepStaticPod(cmd.Context(), o, health, cmd.ErrOrStderr())
			return out.write(cmd, result{Report: report, Err: err}, nothing)
		}
		return out.write(cmd, result{Report: report}, func(w io.Writer, _ painter) error {
			_, err := fmt.Fprintf(w, "%s: pod %s in namespace %s\n", manifest, report.Name, report.Namespace)
			return err
		})
	}
	return cmd
}

// keptPod is what keep-static-pod prints: the pod of the manifest.
type keptPod struct {
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
	Revision  string `json:"revision,omitempty"`
}

func keepStaticPod(ctx context.Context, o staticpod.Options, health string, stderr io.Writer) error {
	ec := zap.NewProductionEncoderConfig() // as trousseau's log
	ec.TimeKey = "time"
	ec.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	o.Logger = zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(ec), zapcore.Lock(zapcore.AddSync(stderr)), zap.InfoLevel))
	keeper, err := staticpod.New(o)
	if err != nil {
		return err
	}
	if health != "" {
		if info, err := os.Lstat(health); err == nil && info.Mode().Type() == fs.ModeSocket {
			_ = os.Remove(health) // left by a process that was killed
		}
		listener, err := new(net.ListenConfig).Listen(ctx, "unix", health)
		if err != nil {
			return fmt.Errorf("--health-addr: %w", err)
		}
		server := &http.Server{Handler: keeper.Health(), ReadHeaderTimeout: 5 * time.Second}
		defer server.Close()
		go func() { _ = server.Serve(listener) }() // it ends with this process
	}
	keeper.Run(ctx)
	return nil
}
