// SPDX-License-Identifier: Apache-2.0

package testbed

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apiserver/pkg/storage/value"
	"k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2"
	kmstypes "k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2/v2"
	"k8s.io/client-go/kubernetes/scheme"
)

// SealedSecret is a Secret as stored in etcd, encrypted under its own seed.
type SealedSecret struct {
	// Name is the name in the namespace default.
	Name string

	key    string
	stored []byte
}

// SealSecrets creates n Secrets, each under its own seed, as n runs of
// kube-apiserver would write them. It uses kube-apiserver's code but avoids the cost
// of starting it. The names are prefix0, prefix1 and so on.
func (p *Trousseau) SealSecrets(prefix string, n int) []SealedSecret {
	p.bed.t.Helper()
	secrets := make([]SealedSecret, n)
	group, ctx := errgroup.WithContext(p.bed.t.Context())
	group.SetLimit(4)
	for i := range secrets {
		group.Go(func() (err error) {
			secrets[i], err = p.sealSecret(ctx, fmt.Sprint(prefix, i))
			return err
		})
	}
	if err := group.Wait(); err != nil {
		p.bed.t.Fatal(err)
	}
	return secrets
}

func (p *Trousseau) sealSecret(ctx context.Context, name string) (SealedSecret, error) {
	secret := &corev1.Secret{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: name, UID: uuid.NewUUID()},
		Data:       map[string][]byte{"value": random()},
	}
	var encoded bytes.Buffer
	if err := protobuf.NewSerializer(scheme.Scheme, scheme.Scheme).Encode(secret, &encoded); err != nil {
		return SealedSecret{}, err
	}
	transformer, object, _, err := kmsv2.GenerateTransformer(ctx, string(uuid.NewUUID()), p.KMS, true)
	if err != nil {
		return SealedSecret{}, err
	}
	key := "/registry/secrets/" + metav1.NamespaceDefault + "/" + name
	if object.EncryptedData, err = transformer.TransformToStorage(ctx, encoded.Bytes(), value.DefaultContext(key)); err != nil {
		return SealedSecret{}, err
	}
	stored, err := proto.Marshal(object)
	if err != nil {
		return SealedSecret{}, err
	}
	return SealedSecret{Name: name, key: key, stored: append([]byte(StoredPrefix), stored...)}, nil
}

// Object decodes the value stored in etcd without decrypting it.
func (s SealedSecret) Object() (*kmstypes.EncryptedObject, error) { return Decode(s.stored) }

// LeaveSecrets stores n Secrets in etcd, each under its own seed; see
// [Trousseau.SealSecrets].
func (e *Etcd) LeaveSecrets(p *Trousseau, prefix string, n int) {
	e.bed.t.Helper()
	for _, s := range p.SealSecrets(prefix, n) {
		if err := e.Leave(e.bed.t.Context(), s); err != nil {
			e.bed.t.Fatal(err)
		}
	}
}

// Leave stores a sealed Secret in etcd, as another API server would. It uses etcd's
// JSON gateway, because one etcdctl process for each Secret would be too slow.
func (e *Etcd) Leave(ctx context.Context, s SealedSecret) error {
	body, err := json.Marshal(map[string][]byte{"key": []byte(s.key), "value": s.stored})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.URL+"/v3/kv/put", bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("putting %s into etcd: %s", s.key, resp.Status)
	}
	return nil
}
