// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/trousseau-io/trousseau/internal/config"
	"github.com/trousseau-io/trousseau/internal/daemon/kms"
	"github.com/trousseau-io/trousseau/internal/daemon/live"
	"github.com/trousseau-io/trousseau/internal/daemon/ops"
	"github.com/trousseau-io/trousseau/internal/daemon/unixsock"
	"github.com/trousseau-io/trousseau/internal/daemon/watch"
)

// serve is the daemon: configuration flows from the watcher through the KEK to
// the KMS server on the socket.
func serve(ctx context.Context, o options, stderr io.Writer) error {
	// Install the handler first: SIGHUP's default action ends the process.
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)

	log := newLogger(o, stderr)
	log.Info("trousseau starts", zap.String("version", version), zap.Int("pid", os.Getpid()),
		zap.String("config", o.configFile), zap.String("socket", o.socket))
	registry := prometheus.NewRegistry()

	watcher := watch.New(watch.Options[*config.Config]{
		Path:   o.configFile,
		Parse:  config.Parse,
		Read:   config.ReadFile,
		Poll:   o.configPoll,
		Logger: log.Named("watch"),
	})
	kek := live.New(live.Options{
		Contents:         watcher.Contents(),
		Reread:           watcher.Look,
		RequestTimeout:   o.requestTime,
		ProbeInterval:    o.probeInterval,
		ProbeTimeout:     o.probeTime,
		OutageGrace:      o.outageGrace,
		MaxVaultRequests: o.vaultRequests,
		RequireTLS:       o.requireTLS,
		Registerer:       registry,
		Logger:           log.Named("live"),
	})
	server := kms.New(kms.Options{
		KEK:            kek,
		RequestTimeout: o.requestTime,
		DecryptV1:      o.decryptV1,
		Registerer:     registry,
		Logger:         log.Named("kms"),
	})

	socket := unixsock.Options{
		Path:      o.socket,
		Mode:      o.socketMode,
		Group:     o.socketGroup,
		AllowUIDs: o.allowUIDs,
		Logger:    log.Named("socket"),
	}
	listener, err := unixsock.Listen(ctx, socket)
	inUse, taken := errors.AsType[*unixsock.InUseError](err)
	if err != nil && !(taken && o.takeover) {
		return err
	}
	// What runs beside the server outlives ctx until the last request is done.
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	var parts sync.WaitGroup
	defer parts.Wait()
	defer stop()
	var serving atomic.Pointer[unixsock.Listener] // nil while this process does not serve
	var started atomic.Bool                       // it has served
	ops.Register(registry, version, revision())
	pages := ops.Options{
		Registry: registry,
		Started:  startChecks(kek, &started),
		Ready:    readyChecks(kek, &serving),
		Logger:   log.Named("ops"),
	}
	own := ops.Listen(background, pages.At(o.health))
	// Before any configuration is read, and after all that needs a file.
	denyWriting(o, log.Named("sandbox"))

	parts.Go(func() { own.Serve(background) })
	parts.Go(func() { watcher.Run(background) })
	parts.Go(func() { kek.Run(background) })
	parts.Go(func() { lookOnHangup(background, hangup, watcher, kek, log) })
	parts.Go(func() { tellSystemd(background, kek, &serving) })
	parts.Go(func() {
		feedWatchdog(background, func(ctx context.Context) bool { return answers(ctx, serving.Load()) })
	})

	if taken {
		log.Info("another process serves the socket; taking it over once the key is proven usable", zap.Int("owner", inUse.PID))
		if !proven(ctx, kek) {
			return nil
		}
		socket.Takeover = true
		if listener, err = unixsock.Listen(ctx, socket); err != nil {
			return err
		}
	}
	defer func() { _ = listener.Close() }()
	drain := func() bool {
		ctx, cancel := context.WithTimeout(background, o.drainTime)
		defer cancel()
		return server.Shutdown(ctx)
	}
	for {
		shown, hide := context.WithCancel(background)
		endpoints := ops.Listen(shown, pages.At(o.opsAddr))
		parts.Go(func() { endpoints.Serve(shown) })

		served := make(chan error, 1)
		go func(l *unixsock.Listener) {
			if l.FromSystemd() {
				// Requests have waited in the socket. Without a key they would fail.
				log.Info("socket passed by systemd; accepting once the key is proven usable", zap.Duration("at_most", o.requestTime))
				wait, cancel := context.WithTimeout(ctx, o.requestTime)
				proven(wait, kek)
				cancel()
			}
			serving.Store(l)
			started.Store(true)
			served <- server.Serve(l)
		}(listener)
		systemd(daemon.SdNotifyReady)
		log.Info("serving", zap.String("socket", o.socket))
		select {
		case err = <-served:
			err = fmt.Errorf("serving %s: %w", o.socket, err)
		case <-listener.Replaced():
			log.Info("another process has taken the socket over; finishing what is under way, then waiting to be stopped")
			serving.Store(nil)
			// The port is the successor's now: what asks there, such as a kubelet
			// that must see it ready before it stops this one, means that one.
			hide()
			drain()
			_ = listener.Close() // drain does not, if Serve has not begun
			// A supervisor would restart a process that ended by itself, and the
			// two would take the socket from each other for ever. If the successor
			// ends first, this process is needed again.
			next, failure := unixsock.Await(ctx, socket)
			if failure == nil {
				listener = next
				log.Warn("the process that had taken the socket over is gone; serving again")
				continue
			}
			if ctx.Err() == nil {
				err = fmt.Errorf("serving again: %w", failure)
			}
		case <-ctx.Done():
		}
		systemd(daemon.SdNotifyStopping)
		finished := drain()
		hide()
		log.Info("trousseau stops", zap.Bool("all_requests_finished", finished))
		return err
	}
}

// proven waits until the key is proven usable, and returns false if ctx is done
// first.
func proven(ctx context.Context, kek *live.KEK) bool {
	adopted := kek.Replaced()
	if kek.Current() == nil {
		select {
		case <-adopted:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// lookOnHangup reads the configuration at every SIGHUP, and tries again what was
// refused.
func lookOnHangup(ctx context.Context, hangup <-chan os.Signal, watcher *watch.Watcher[*config.Config], kek *live.KEK, log *zap.Logger) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangup:
			log.Info("SIGHUP: reading the configuration now")
			systemdReloading()
			watcher.Look()
			kek.Hurry()
			systemd(daemon.SdNotifyReady)
		}
	}
}
