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

// Checksum says whether a snapshot file is whole.
type Checksum string

const (
	// ChecksumOK means that the file ends in the SHA-256 of what stands before.
	ChecksumOK Checksum = "ok"
	// ChecksumMissing means that it ends in none: it is no snapshot but a copy
	// of a database file, or the end of it is gone.
	ChecksumMissing Checksum = "missing"
)

// hasChecksum reports whether a file of that size ends in a checksum. A database
// is made of whole pages, so that what is left over is one (hasChecksum in etcd's
// etcdutl/snapshot/v3_snapshot.go).
func hasChecksum(size int64) bool { return size%512 == sha256.Size }

// checkSum reads the file once, from the beginning.
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
		return "", fmt.Errorf("%s is damaged: its content does not have the SHA-256 that it ends in: copy it again from where it was made, or use another snapshot", file.Name())
	}
	return ChecksumOK, nil
}
