// SPDX-License-Identifier: Apache-2.0

// Command oci packs file trees, one for each platform, into an image in an OCI
// layout, and prints the digest of the image and of each platform's manifest.
//
//	oci -layout DIR -version VERSION [-revision COMMIT] [-epoch SECONDS] amd64=ROOT arm64=ROOT
//
// The files, the flags and the Go version determine every byte of the result. There
// is no base image and nothing runs, so any machine can build for all platforms.
package main

import (
	"archive/tar"
	"bytes"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// name is the image's name for a runtime that imports the layout. No registry can
// be asked for it by accident.
const name = "localhost/trousseau"

func main() {
	var b build
	dir := flag.String("layout", "", "`directory` of the new layout")
	flag.StringVar(&b.version, "version", "", "version, which is the image's tag")
	flag.StringVar(&b.revision, "revision", "unknown", "commit of the source")
	epoch := flag.Int64("epoch", 0, "time of everything in the image, in Unix `seconds`")
	flag.Parse()
	b.created = time.Unix(*epoch, 0).UTC()
	if err := b.write(*dir, flag.Args()); err != nil {
		fmt.Fprintf(os.Stderr, "oci: %v\n", err)
		os.Exit(1)
	}
}

// build is what all platforms share.
type build struct {
	version, revision string
	created           time.Time
}

// write creates the layout from arguments of the form ARCHITECTURE=ROOT.
func (b build) write(dir string, roots []string) error {
	if dir == "" || b.version == "" || len(roots) == 0 {
		return fmt.Errorf("-layout, -version and at least one ARCHITECTURE=ROOT are required")
	}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	lines := make([]string, 0, len(roots))
	for _, arg := range roots {
		arch, root, ok := strings.Cut(arg, "=")
		if !ok {
			return fmt.Errorf("%s is not ARCHITECTURE=ROOT", arg)
		}
		image, err := b.image(arch, root)
		if err != nil {
			return err
		}
		line, err := summary(arch, image)
		if err != nil {
			return err
		}
		lines = append(lines, line)
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add:        image,
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}},
		})
	}
	index = mutate.Annotations(index, b.labels()).(v1.ImageIndex)
	digest, err := index.Digest()
	if err != nil {
		return err
	}
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	// The first annotation is OCI's, for podman and skopeo; the second containerd's.
	if err := path.AppendIndex(index, layout.WithAnnotations(map[string]string{
		"org.opencontainers.image.ref.name": b.version,
		"io.containerd.image.name":          name + ":" + b.version,
	})); err != nil {
		return err
	}
	fmt.Println(b.version, digest)
	fmt.Print(strings.Join(lines, ""))
	return nil
}

// image makes the image of one platform.
func (b build) image(arch, root string) (v1.Image, error) {
	files, err := b.pack(root)
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(files)), nil
	}, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	image, err := mutate.Append(mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON),
		mutate.Addendum{Layer: layer, History: v1.History{Created: v1.Time{Time: b.created}, CreatedBy: "test/image/build"}})
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Created = "linux", arch, v1.Time{Time: b.created}
	config.Config = v1.Config{
		Entrypoint: []string{"/trousseau"},
		// A number: there is no /etc/passwd, and kubelet's runAsNonRoot needs one.
		User:   "65532:65532",
		Labels: b.labels(),
	}
	return mutate.ConfigFile(image, config)
}

// pack returns the files under root as a tar archive, owned by root.
func (b build) pack(root string) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		header := &tar.Header{Typeflag: tar.TypeDir, Name: rel + "/", Mode: 0o755, ModTime: b.created, Format: tar.FormatPAX}
		if entry.IsDir() {
			return w.WriteHeader(header)
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		header.Typeflag, header.Name, header.Size = tar.TypeReg, rel, int64(len(data))
		if info.Mode()&0o111 == 0 {
			header.Mode = 0o644
		}
		if err := w.WriteHeader(header); err != nil {
			return err
		}
		_, err = w.Write(data)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out.Bytes(), w.Close()
}

func (b build) labels() map[string]string {
	const page = "https://github.com/trousseau-io/trousseau"
	return map[string]string{
		"org.opencontainers.image.title":         "trousseau",
		"org.opencontainers.image.description":   "Kubernetes KMS v2 plugin for HashiCorp Vault's transit engine",
		"org.opencontainers.image.source":        page,
		"org.opencontainers.image.documentation": page + "/blob/main/docs/install.md",
		"org.opencontainers.image.licenses":      "Apache-2.0",
		"org.opencontainers.image.version":       b.version,
		"org.opencontainers.image.revision":      b.revision,
		"org.opencontainers.image.created":       b.created.Format(time.RFC3339),
	}
}

// summary describes one platform: its manifest's digest and what a node pulls.
func summary(arch string, image v1.Image) (string, error) {
	digest, err := image.Digest()
	if err != nil {
		return "", err
	}
	manifest, err := image.Manifest()
	if err != nil {
		return "", err
	}
	size := manifest.Config.Size
	for _, layer := range manifest.Layers {
		size += layer.Size
	}
	return fmt.Sprintf("  linux/%s %s %.1f MiB to pull\n", arch, digest, float64(size)/(1<<20)), nil
}
