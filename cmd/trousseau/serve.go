// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/trousseau-io/trousseau/internal/daemon/kms"
	"github.com/trousseau-io/trousseau/internal/daemon/live"
	"github.com/trousseau-io/trousseau/internal/daemon/ops"
	"github.com/trousseau-io/trousseau/internal/daemon/unixsock"
	"github.com/trousseau-io/trousseau/internal/daemon/watch"
)

// serve is the daemon: configuration flows from the watcher through the KEK to
// the KMS server on the socket.
func serve(ctx context.Context, o options, stderr io.Writer) error {
	// Before anybody can know that we are here: SIGHUP kills who does not ask for it.
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)

	log := newLogger(o, stderr)
	log.Info("trousseau starts", zap.String("version", version), zap.Int("pid", os.Getpid()),
		zap.String("config", o.configFile), zap.String("socket", o.socket))
	registry := prometheus.NewRegistry()

	box := newSandbox(o, log.Named("sandbox"))
	files := &confined{box: box, main: o.configFile}
	watcher := watch.New(watch.Options{
		Path:    o.configFile,
		Related: files.related,
		Read:    files.read,
		Poll:    o.configPoll,
		Logger:  log.Named("watch"),
	})
	kek := live.New(live.Options{
		Contents:         watcher.Contents(),
		Reread:           watcher.Look,
		RequestTimeout:   o.requestTime,
		ProbeInterval:    o.probeInterval,
		OutageGrace:      o.outageGrace,
		MaxVaultRequests: o.vaultRequests,
		RequireTLS:       o.requireTLS,
		Registerer:       registry,
		Logger:           log.Named("live"),
	})
	server := kms.New(kms.Options{
		KEK:            kek,
		RequestTimeout: o.requestTime,
		Registerer:     registry,
		Logger:         log.Named("kms"),
	})

	socket, err := unixsock.Bind(ctx, unixsock.Options{
		Path:      o.socket,
		Mode:      o.socketMode,
		Group:     o.socketGroup,
		AllowUIDs: o.allowUIDs,
		Logger:    log.Named("socket"),
	})
	if err != nil {
		return err
	}
	defer socket.Close()
	if owner, taken := socket.Owner(); taken && !o.takeover {
		return &unixsock.InUseError{Path: o.socket, PID: owner.PID}
	}
	// Not before, since binding takes more than publishing does; and before any configuration is read.
	box.GiveUpWriting()

	// What runs beside the server outlives ctx until the last request is done.
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	var parts sync.WaitGroup
	defer parts.Wait()
	defer stop()
	parts.Go(func() { watcher.Run(background) })
	parts.Go(func() { kek.Run(background) })
	parts.Go(func() { lookOnHangup(background, hangup, watcher, log) })
	parts.Go(func() { tellSystemd(background, kek) })

	listener, err := publish(ctx, socket, kek, o.takeover, log)
	if err != nil || listener == nil {
		return err
	}
	ops.Register(registry, version, revision())
	shown, hide := context.WithCancel(background)
	defer hide()
	endpoints := ops.Listen(shown, ops.Options{
		Addr:     o.opsAddr,
		Registry: registry,
		Ready:    []ops.Check{{Name: "kek", Check: kek.Degraded}},
		Logger:   log.Named("ops"),
	})
	parts.Go(func() { endpoints.Serve(shown) })

	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	systemd(daemon.SdNotifyReady)
	log.Info("serving", zap.String("socket", o.socket))
	drain := func() bool {
		ctx, cancel := context.WithTimeout(background, o.drainTime)
		defer cancel()
		return server.Shutdown(ctx)
	}
	select {
	case err := <-served:
		return fmt.Errorf("serving %s: %w", o.socket, err)
	case <-listener.Replaced():
		log.Info("another process has taken the socket over; finishing what is under way, then waiting to be stopped")
		// The port is the successor's now: what asks there, such as a kubelet
		// that must see it ready before it stops this one, means that one.
		hide()
		drain()
		// A supervisor would restart a process that ended by itself, and the
		// two would take the socket from each other for ever.
		<-ctx.Done()
	case <-ctx.Done():
	}
	systemd(daemon.SdNotifyStopping)
	finished := drain()
	log.Info("trousseau stops", zap.Bool("all_requests_finished", finished))
	return nil
}

// publish puts the socket at its path. If another process serves there, that
// waits until this one has proven that it could do so as well. The listener is
// nil if ctx was done first.
func publish(ctx context.Context, socket *unixsock.Pending, kek *live.KEK, takeover bool, log *zap.Logger) (*unixsock.Listener, error) {
	if owner, taken := socket.Owner(); taken {
		log.Info("another process serves the socket; taking it over once the key is proven usable", zap.Int("owner", owner.PID))
		adopted := kek.Replaced()
		if kek.Current() == nil {
			select {
			case <-adopted:
			case <-ctx.Done():
				return nil, nil
			}
		}
	}
	return socket.Publish(ctx, takeover)
}

// lookOnHangup reads the configuration at every SIGHUP.
func lookOnHangup(ctx context.Context, hangup <-chan os.Signal, watcher *watch.Watcher, log *zap.Logger) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangup:
			log.Info("SIGHUP: reading the configuration now")
			systemdReloading()
			watcher.Look()
			systemd(daemon.SdNotifyReady)
		}
	}
}
