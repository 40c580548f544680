// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trousseau-io/trousseau/test/harness/testbed"
)

// remembered holds the values of Secrets by name. They must stay readable.
type remembered map[string][]byte

// create creates n Secrets through an API server: prefix0, prefix1 and so on.
func create(t *testing.T, api *testbed.APIServer, prefix string, n int) remembered {
	t.Helper()
	r := make(remembered)
	for i := range n {
		name := fmt.Sprint(prefix, i)
		r[name] = []byte("the value of " + name)
		_, err := api.Client.CoreV1().Secrets(metav1.NamespaceDefault).Create(t.Context(), &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string][]byte{"value": r[name]},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatalf("creating a Secret through %s: %v", api.Name, err)
		}
	}
	return r
}

// learn reads n existing Secrets and adds them.
func (r remembered) learn(t *testing.T, api *testbed.APIServer, prefix string, n int) {
	t.Helper()
	for i := range n {
		name := fmt.Sprint(prefix, i)
		value, err := read(t.Context(), api, name)
		if err != nil {
			t.Fatal(err)
		}
		r[name] = value
	}
}

// readable returns nil if an API server reads each Secret from etcd, not from its
// watch cache, and the values are correct.
func (r remembered) readable(ctx context.Context, api *testbed.APIServer) error {
	for name, want := range r {
		got, err := read(ctx, api, name)
		if err != nil {
			return err
		}
		if !bytes.Equal(got, want) {
			return fmt.Errorf("%s reads Secret %s as %q, want %q", api.Name, name, got, want)
		}
	}
	return nil
}

func (r remembered) mustBeReadable(t *testing.T, api *testbed.APIServer, when string) {
	t.Helper()
	if err := r.readable(t.Context(), api); err != nil {
		t.Fatalf("%s: %v", when, err)
	}
}

// read reads one Secret; without a resourceVersion this reads from etcd.
func read(ctx context.Context, api *testbed.APIServer, name string) ([]byte, error) {
	secret, err := api.Client.CoreV1().Secrets(metav1.NamespaceDefault).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("reading Secret %s through %s: %w", name, api.Name, err)
	}
	return secret.Data["value"], nil
}
