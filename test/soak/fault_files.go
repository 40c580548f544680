// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// corruptConfig writes an invalid configuration in place, which must not be adopted.
// Several variants have the token in a wrong field, from which it must not get into
// a log.
func corruptConfig(s *stage, random *rand.Rand) (func() error, error) {
	good, token := s.agent.should(configName), s.agent.token()
	noise := make([]byte, 200)
	for i := range noise {
		noise[i] = byte(random.Uint32())
	}
	bad := []string{
		string(noise),
		good + good,
		good + "  " + token + ": true\n",
		strings.Replace(good, "address: ", "address: "+token, 1),
		strings.Replace(good, "token: ", "tokne: ", 1),
		strings.Replace(good, token, "<no value>", 1),
		strings.Replace(good, token, "["+token, 1),
		strings.Replace(good, token, s.unknownToken, 1),
		strings.Replace(good, "- "+keyName, "- another-key", 1),
		strings.Replace(good, "- "+keyName, "- "+token, 1),
		strings.Replace(good, caFile, keyFile, 1),
	}
	return damage(s, []byte(bad[random.IntN(len(bad))]))
}

// truncateConfig truncates config.yaml, possibly to zero bytes.
func truncateConfig(s *stage, random *rand.Rand) (func() error, error) {
	good := s.agent.should(configName)
	left := random.IntN(strings.Index(good, s.agent.token()))
	if random.IntN(4) == 0 {
		left = 0
	}
	return damage(s, []byte(good[:left]))
}

// damage writes config.yaml in place.
func damage(s *stage, content []byte) (func() error, error) {
	// A full disk prevents writing, which is also damage.
	if err := os.WriteFile(s.agent.path(configName), content, 0o600); err != nil && !errors.Is(err, syscall.ENOSPC) {
		return nil, err
	}
	return func() error {
		s.agent.restore(configName)
		return nil
	}, nil
}

func deleteConfig(s *stage, _ *rand.Rand) (func() error, error) {
	// The file is missing if a full disk prevented the agent from writing it.
	if err := os.Remove(s.agent.path(configName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return func() error {
		s.agent.restore(configName)
		return nil
	}, nil
}

// diskSize is the size in bytes of the file system for config.yaml and the files it
// names: a few times their size.
const diskSize = 128 << 10

// mountDisk mounts a small file system at dir. It needs root.
func mountDisk(dir string) error {
	if err := syscall.Mount("soak", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0700", diskSize)); err != nil {
		return fmt.Errorf("mounting a small tmpfs: %w", err)
	}
	return nil
}

// fillDisk fills the file system of config.yaml completely.
func fillDisk(s *stage, _ *rand.Rand) (func() error, error) {
	if s.noDisk != nil {
		return nil, fmt.Errorf("%w: %w", errSkipped, s.noDisk)
	}
	ballast := filepath.Join(s.agent.dir, "ballast")
	err := os.WriteFile(ballast, bytes.Repeat([]byte("."), diskSize), 0o600)
	if err == nil {
		err = errors.New("it accepted more data than its size")
	}
	if !errors.Is(err, syscall.ENOSPC) {
		return nil, fmt.Errorf("filling the disk of %s: %w", s.agent.dir, err)
	}
	return func() error { return os.Remove(ballast) }, nil
}
