// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"errors"
	"fmt"
	"syscall"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Kubeconfig reads a context of a kubeconfig file; "" is the current one. Without a file
// it takes KUBECONFIG, then ~/.kube/config, then the ServiceAccount of the pod it runs
// in. Its errors never quote a file, which holds secrets.
func Kubeconfig(file, context string) (*rest.Config, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = file
	where := file
	if where == "" {
		where = "KUBECONFIG or ~/.kube/config"
	}
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: context})
	if raw, err := loader.RawConfig(); err == nil && context != "" && raw.Contexts[context] == nil {
		return nil, fmt.Errorf("%s has no context %q", where, context)
	}
	config, err := loader.ClientConfig()
	var errno syscall.Errno
	switch {
	case err == nil:
		return config, nil
	case errors.As(err, &errno):
		return nil, fmt.Errorf("reading %s: %w", where, errno)
	case clientcmd.IsEmptyConfig(err) && file == "":
		return nil, fmt.Errorf("there is no cluster in %s: give --kubeconfig", where)
	}
	return nil, fmt.Errorf("%s is not a kubeconfig with a current context", where)
}
