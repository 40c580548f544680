// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/trousseau-io/trousseau/internal/ctl/apiserver"
	"github.com/trousseau-io/trousseau/internal/ctl/cluster"
	"github.com/trousseau-io/trousseau/internal/ctl/fleet"
)

// clusterFlags name a cluster, and the plugin's pods in it.
type clusterFlags struct {
	kubeconfig, context, namespace, selector string
}

func (f *clusterFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.kubeconfig, "kubeconfig", "", "kubeconfig `file` of the cluster (default KUBECONFIG, then ~/.kube/config)")
	flags.StringVar(&f.context, "context", "", "context `name` in the kubeconfig (default its current context)")
	f.registerPods(flags)
}

// registerPods adds the flags of a command that has the others already.
func (f *clusterFlags) registerPods(flags *pflag.FlagSet) {
	flags.StringVar(&f.namespace, "namespace", "", "namespace `name` of trousseau's pods (default all)")
	flags.StringVar(&f.selector, "selector", cluster.Selector, "label `selector` of trousseau's pods")
}

// given reports whether the command line names a cluster.
func (f *clusterFlags) given(flags *pflag.FlagSet) bool {
	for _, name := range []string{"kubeconfig", "context", "namespace", "selector"} {
		if flags.Changed(name) {
			return true
		}
	}
	return false
}

func (f *clusterFlags) open() (*cluster.Cluster, error) {
	config, err := apiserver.Kubeconfig(f.kubeconfig, f.context)
	if err != nil {
		return nil, err
	}
	return cluster.New(cluster.Options{Config: config, Namespace: f.namespace, Selector: f.selector})
}

// nodeFlags say which nodes a command asks: those of a cluster, or addresses.
type nodeFlags struct {
	cluster clusterFlags
	ops     []string
	from    string
}

func (f *nodeFlags) register(flags *pflag.FlagSet) {
	f.cluster.register(flags)
	flags.StringSliceVar(&f.ops, "ops", nil, "`ADDR,...` of the ops endpoints of every node, instead of arguments")
	flags.StringVar(&f.from, "nodes-from", "", "`file` with one ADDR per line, instead of arguments; - for stdin")
}

// typed reports whether the command line names addresses.
func (f *nodeFlags) typed(args []string) bool { return len(args) > 0 || len(f.ops) > 0 || f.from != "" }

// options returns the nodes, or how to find them. If addresses and a cluster are given,
// the cluster's API servers are counted.
func (f *nodeFlags) options(cmd *cobra.Command, args []string) (fleet.Options, error) {
	typed := f.typed(args)
	var nodes []fleet.Node
	var err error
	if typed {
		if nodes, err = f.parse(cmd.InOrStdin(), args); err != nil {
			return fleet.Options{}, err
		}
		if !f.cluster.given(cmd.Flags()) {
			return fleet.Options{Nodes: nodes}, nil
		}
	}
	c, err := f.cluster.open()
	if err != nil {
		return fleet.Options{}, err
	}
	if !typed {
		return fleet.Options{Find: c.Find}, nil
	}
	return fleet.Options{Find: func(ctx context.Context) (fleet.Members, error) {
		addresses, err := c.APIServers(ctx)
		found := fleet.Members{Nodes: nodes, Typed: true}
		for _, a := range addresses {
			found.APIServers = append(found.APIServers, fleet.APIServer{Address: a})
		}
		return found, err
	}}, nil
}

// findOr finds the plugin's pods or, in a cluster without them, asks these nodes.
func (f *clusterFlags) findOr(nodes []fleet.Node) (func(context.Context) (fleet.Members, error), error) {
	c, err := f.open()
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) (fleet.Members, error) {
		found, err := c.Find(ctx)
		if errors.Is(err, cluster.ErrNoPods) {
			return fleet.Members{Nodes: nodes}, nil
		}
		return found, err
	}, nil
}

// again repeats the flags and arguments, for a command line to copy.
func (f *nodeFlags) again(flags *pflag.FlagSet, args []string) (words string) {
	for _, name := range []string{"kubeconfig", "context", "namespace", "selector", "nodes-from"} {
		if flags.Changed(name) {
			words += " --" + name + " " + flags.Lookup(name).Value.String()
		}
	}
	for _, addr := range append(args, f.ops...) {
		words += " " + addr
	}
	return words
}

// parse reads the addresses.
func (f *nodeFlags) parse(stdin io.Reader, args []string) (nodes []fleet.Node, err error) {
	switch {
	case f.from == "":
		if nodes, err = fleet.ParseNodes(append(args, f.ops...)); err != nil {
			return nil, usageError{err}
		}
		return nodes, nil
	case len(args)+len(f.ops) > 0:
		return nil, usageError{errors.New("give ADDR or --nodes-from, not both")}
	}
	name := f.from
	if name == "-" {
		name = "stdin"
	} else {
		file, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("--nodes-from: %w", err)
		}
		defer file.Close()
		stdin = file
	}
	if nodes, err = fleet.ReadNodes(stdin); err != nil {
		return nil, usageError{fmt.Errorf("--nodes-from: %s: %w", name, err)}
	}
	if len(nodes) == 0 {
		return nil, usageError{fmt.Errorf("--nodes-from: %s has no address; write one per line", name)}
	}
	return nodes, nil
}
