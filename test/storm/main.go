// SPDX-License-Identifier: Apache-2.0

// Command storm lets many simulated clusters come back at once, as after a power cut:
// the three plugins of each ask one real Vault for all seeds that their API servers
// find in etcd. It measures when all are ready, and what that costs Vault, with
// Trousseau and with plugins that make one call per seed. Then the same with a Vault
// that is down at first. The ratios within one run count; the times are those of the
// machine.
//
// It uses the Vault in the directory TROUSSEAU_E2E, or one built by test/tools/build.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"time"

	"k8s.io/klog/v2"
	"k8s.io/klog/v2/textlogger"
)

func main() {
	o := options{clusters: numbers{5, 20, 40}, atOnce: numbers{10, 1}}
	flag.StringVar(&o.binary, "trousseau", "bin/trousseau", "the `binary` to measure")
	flag.Var(&o.clusters, "clusters", "`numbers` of clusters, three plugins each")
	flag.IntVar(&o.seeds, "seeds", 100, "`number` of distinct seeds of each plugin")
	flag.Var(&o.atOnce, "at-once", "`numbers` of Decrypts that an API server makes at once; kube-apiserver 1.37 makes 10, earlier ones 1")
	flag.IntVar(&o.processes, "processes", -1, "`number` of plugins that are processes, the others run inside this one; -1 as memory allows")
	flag.DurationVar(&o.outage, "outage", 10*time.Second, "how long Vault is down while plugins start")
	flag.DurationVar(&o.patience, "patience", 2*time.Minute, "how long a storm may take")
	flag.IntVar(&o.quota, "quota", 200, "`calls` per second that Vault's rate limit quota allows; 0 leaves that case out")
	flag.Uint64Var(&o.random, "seed", 1, "`seed` of what is random: plaintexts, and their order")
	flag.Parse()
	// kube-apiserver's client logs every socket that is not there yet.
	klog.SetLogger(textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(io.Discard))))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := measure(ctx, o, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "storm: %v\n", err)
		os.Exit(1)
	}
}

// options are the command-line options.
type options struct {
	binary           string
	clusters, atOnce numbers
	seeds            int
	processes        int
	outage, patience time.Duration
	quota            int
	random           uint64
}

// numbers is a flag that holds positive numbers, separated by commas.
type numbers []int

func (n *numbers) String() string {
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(*n), " ", ","), "[]")
}

func (n *numbers) Set(text string) error {
	*n = nil
	for word := range strings.SplitSeq(text, ",") {
		number, err := strconv.Atoi(word)
		if err != nil || number < 1 {
			return fmt.Errorf("%q is not a positive number", word)
		}
		*n = append(*n, number)
	}
	return nil
}

// measure runs all storms on a real Vault and prints them.
func measure(ctx context.Context, o options, w io.Writer) (err error) {
	v, err := startVault(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.close()) }()
	return o.run(ctx, v, w)
}

func (o options) run(ctx context.Context, v upstream, w io.Writer) error {
	s, err := newStage(ctx, o, v)
	if err != nil {
		return err
	}
	defer s.close()
	var outcomes []outcome
	for _, scene := range o.scenes() {
		next, err := s.play(ctx, scene)
		if err != nil {
			return fmt.Errorf("%s: %w", scene, err)
		}
		outcomes = append(outcomes, next)
		// A run takes minutes: show that it goes on.
		fmt.Fprintln(os.Stderr, next)
	}
	return errors.Join(s.print(w, outcomes), verdict(outcomes))
}

// verdict is an error if a plugin did not become ready.
func verdict(outcomes []outcome) error {
	var errs []error
	for _, o := range outcomes {
		if o.notReady > 0 {
			errs = append(errs, fmt.Errorf("%s: %d plugins are not ready", o.scene, o.notReady))
		}
	}
	return errors.Join(errs...)
}
