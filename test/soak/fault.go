// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"math/rand/v2"
	"time"

	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

// subject is what a fault touches. Two faults that touch the same are never
// there at the same time.
type subject int

const (
	onToken subject = iota
	onKey
	onSeal
	onPower
	onSpeed
	onConnections
	onErrors
	onProcess
	onConfig
	onCertificates
	onDisk
	onDescriptors
	subjects // how many there are
)

// fault is one thing that can go wrong, or that an operator can do.
type fault struct {
	// name is for the report and the list of steps.
	name    string
	touches subject
	// harmless faults make no request fail when nothing else is wrong.
	harmless bool
	// longer is how much longer it lasts than others.
	longer time.Duration
	// begin does it and returns what undoes it. It draws from random alone, or a
	// seed would not bring the same again. The error errSkipped says that this
	// machine does not let us; any other one ends the soak.
	begin func(s *stage, random *rand.Rand) (end func() error, err error)
}

var errSkipped = errors.New("not possible on this machine")

var faults = []fault{
	// name, touches, harmless, longer, begin
	{"token rotated, the old one revoked at once", onToken, true, 0, rotateToken(revokeAtOnce)},
	{"token rotated, the old one revoked later", onToken, true, 0, rotateToken(revokeLater)},
	{"token rotated, the old one revoked just before", onToken, true, 0, rotateToken(revokeBefore)},
	{"token rotated again and again", onToken, true, 0, keepRotating},
	{"Vault's clock moved", onToken, false, 0, moveClock},
	{"key rotated", onKey, true, 0, rotateKey},
	{"Vault sealed", onSeal, false, 0, sealVault},
	{"Vault stopped", onPower, false, 0, stopVault},
	{"Vault stopped for long", onPower, false, 40 * time.Second, stopVault},
	{"Vault slow", onSpeed, false, 0, slowVault},
	{"Vault silent", onSpeed, false, 0, layOver(vaulttest.Fault{Hang: true})},
	{"Vault resets connections", onConnections, false, 0, layOver(vaulttest.Fault{Cut: vaulttest.CutReset, Rate: 0.5})},
	{"Vault breaks off its answers", onConnections, false, 0, layOver(vaulttest.Fault{Cut: vaulttest.CutBody, Rate: 0.5})},
	{"Vault fails 30% of the requests", onErrors, false, 0, failRequests},
	{"trousseau killed, started again", onProcess, false, 0, killProcess},
	{"trousseau told to stop, started again", onProcess, false, 0, stopProcess},
	{"trousseau taken over by another one", onProcess, true, 0, takeOver},
	{"config.yaml corrupted", onConfig, true, 0, corruptConfig},
	{"config.yaml deleted", onConfig, true, 0, deleteConfig},
	{"config.yaml truncated", onConfig, true, 0, truncateConfig},
	{"CA swapped", onCertificates, false, 0, swapCA},
	{"disk of config.yaml full", onDisk, true, 0, fillDisk},
	{"file descriptors exhausted", onDescriptors, false, 0, exhaustDescriptors},
}
