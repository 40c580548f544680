// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"math/rand/v2"
	"time"

	"github.com/trousseau-io/trousseau/internal/testkit/vaulttest"
)

// subject is what a fault affects. Two faults with the same subject never overlap.
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
	onAddresses
	subjects // number of subjects
)

// fault is a failure, or an operator's action.
type fault struct {
	// name is used in the report and the list of steps.
	name    string
	touches subject
	// A harmless fault makes no request fail on its own.
	harmless bool
	// longer is added to the fault's duration.
	longer time.Duration
	// begin starts the fault and returns a function that ends it. It uses only the
	// given random source, so that a seed reproduces it. errSkipped means that this
	// machine does not permit the fault; any other error ends the soak.
	begin func(s *stage, random *rand.Rand) (end func() error, err error)
}

var errSkipped = errors.New("not possible on this machine")

var faults = []fault{
	// name, touches, harmless, longer, begin
	{"token rotated, old one revoked at once", onToken, true, 0, rotateToken(revokeAtOnce)},
	{"token rotated, old one revoked later", onToken, true, 0, rotateToken(revokeLater)},
	{"token rotated, old one revoked just before", onToken, true, 0, rotateToken(revokeBefore)},
	{"token rotated repeatedly", onToken, true, 0, keepRotating},
	{"Vault's clock moved", onToken, false, 0, moveClock},
	{"key rotated", onKey, true, 0, rotateKey},
	{"Vault sealed", onSeal, false, 0, sealVault},
	{"Vault stopped", onPower, false, 0, stopVault},
	{"Vault stopped for a long time", onPower, false, 40 * time.Second, stopVault},
	{"Vault slow", onSpeed, false, 0, slowVault},
	// Slow, but every request can succeed in time.
	{"Vault takes 1 s for each call", onSpeed, false, 20 * time.Second, layOver(vaulttest.Fault{Delay: time.Second})},
	{"Vault hangs", onSpeed, false, 0, layOver(vaulttest.Fault{Hang: true})},
	{"Vault resets connections", onConnections, false, 0, layOver(vaulttest.Fault{Cut: vaulttest.CutReset, Rate: 0.5})},
	{"Vault truncates answers", onConnections, false, 0, layOver(vaulttest.Fault{Cut: vaulttest.CutBody, Rate: 0.5})},
	{"network forgets its connections", onConnections, false, 0, forgetConnections},
	{"Vault fails 30% of the requests", onErrors, false, 0, failRequests},
	{"Vault is a DR secondary", onErrors, false, 0, layOver(drSecondary)},
	{"Vault lags behind (412)", onErrors, false, 0, layOver(lagging)},
	{"Vault lags behind (412) for over a minute", onErrors, false, 65 * time.Second, layOver(lagging)},
	{"a proxy's HTML page instead of Vault", onErrors, false, 0, htmlPage},
	{"a proxy's JSON 404 instead of Vault", onErrors, false, 0, layOver(proxyNotFound)},
	{"a proxy's JSON 400 instead of Vault", onErrors, false, 0, layOver(proxyBadRequest)},
	{"second address of another Vault", onAddresses, true, 0, addStranger},
	{"second address of another Vault, first blips", onAddresses, false, 20 * time.Second, addStrangerAndBlip},
	{"second address of a DR secondary", onAddresses, true, 0, addSecondary},
	{"first of two addresses is a DR secondary", onAddresses, false, 20 * time.Second, becomeSecondary},
	{"trousseau killed and restarted", onProcess, false, 0, killProcess},
	{"trousseau stopped and restarted", onProcess, false, 0, stopProcess},
	{"trousseau taken over", onProcess, true, 0, takeOver},
	{"config.yaml corrupted", onConfig, true, 0, corruptConfig},
	{"config.yaml deleted", onConfig, true, 0, deleteConfig},
	{"config.yaml truncated", onConfig, true, 0, truncateConfig},
	{"CA replaced", onCertificates, false, 0, swapCA},
	{"disk of config.yaml full", onDisk, true, 0, fillDisk},
	{"file descriptors exhausted", onDescriptors, false, 0, exhaustDescriptors},
}
