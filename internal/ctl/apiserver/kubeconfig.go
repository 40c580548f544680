// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"errors"
	"syscall"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// ReadKubeconfig reads what the current context of a file says. The error is the
// operating system's or our own: what a parser says may quote the file, which
// holds secrets.
func ReadKubeconfig(file string) (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", file)
	var errno syscall.Errno
	switch {
	case errors.As(err, &errno):
		return nil, errno
	case err != nil:
		return nil, errors.New("it is no kubeconfig with a current context")
	}
	return config, nil
}
