// SPDX-License-Identifier: Apache-2.0

package etcd

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
)

// Checksum is the result of checking a snapshot file for damage.
type Checksum string

const (
	// ChecksumOK means that the file ends in the SHA-256 of its content.
	ChecksumOK Checksum = "ok"
	// ChecksumMissing means that it has no checksum: it is a copy of a database file,
	// not a snapshot, or it is cut off.
	ChecksumMissing Checksum = "missing"
)

// hasChecksum reports whether a file of that size ends in a checksum. A database
// consists of whole pages, so the rest is the checksum (hasChecksum in etcd's
// etcdutl/snapshot/v3_snapshot.go).
func hasChecksum(size int64) bool { return size%512 == sha256.Size }

// checkSum reads the whole file once.
func checkSum(ctx context.Context, file *os.File, size int64, progress Progress) (Checksum, error) {
	if !hasChecksum(size) {
		return ChecksumMissing, nil
	}
	content := size - sha256.Size
	sum := sha256.New()
	buffer := make([]byte, 1<<20)
	for done := int64(0); done < content; {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		n, err := file.ReadAt(buffer[:min(int64(len(buffer)), content-done)], done)
		sum.Write(buffer[:n])
		done += int64(n)
		if err != nil && done < content {
			return "", fmt.Errorf("reading %s: %w", file.Name(), err)
		}
		progress.tell(StepChecking, done, content)
	}
	want := make([]byte, sha256.Size)
	if _, err := file.ReadAt(want, content); err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("reading %s: %w", file.Name(), err)
	}
	if !bytes.Equal(sum.Sum(nil), want) {
		return "", fmt.Errorf("%s is damaged: its content does not match the SHA-256 at its end: copy the snapshot again, or use another one", file.Name())
	}
	return ChecksumOK, nil
}
