// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// defaultMode is the API's default for volumes with files.
const defaultMode = 0o644

// files are a volume's files, by name.
func (p *Pod) files(ctx context.Context, v corev1.Volume) (map[string]file, error) {
	switch {
	case v.ConfigMap != nil:
		return p.configMap(ctx, v.ConfigMap)
	case v.Secret != nil:
		return p.secret(ctx, v.Secret)
	case v.DownwardAPI != nil:
		return p.downwardAPI(v.DownwardAPI.Items, v.DownwardAPI.DefaultMode)
	case v.Projected != nil:
		return p.projected(ctx, v.Projected)
	default:
		return nil, errors.New("its kind is not supported")
	}
}

// errNoAPI is the error for a static pod that refers to an object.
var errNoAPI = errors.New("a static pod may not refer to an object of the API server")

func (p *Pod) configMap(ctx context.Context, v *corev1.ConfigMapVolumeSource) (map[string]file, error) {
	if p.static() {
		return nil, errNoAPI
	}
	object, err := p.kubelet.API.CoreV1().ConfigMaps(p.Namespace).Get(ctx, v.Name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	data := maps.Clone(object.BinaryData)
	if data == nil {
		data = make(map[string][]byte)
	}
	for name, text := range object.Data {
		data[name] = []byte(text)
	}
	return pick(data, v.Items, v.DefaultMode)
}

func (p *Pod) secret(ctx context.Context, v *corev1.SecretVolumeSource) (map[string]file, error) {
	if p.static() {
		return nil, errNoAPI
	}
	object, err := p.kubelet.API.CoreV1().Secrets(p.Namespace).Get(ctx, v.SecretName, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	return pick(object.Data, v.Items, v.DefaultMode)
}

// pick returns the items of data, or all of it if no items are given.
func pick(data map[string][]byte, items []corev1.KeyToPath, mode *int32) (map[string]file, error) {
	if len(items) == 0 {
		for name := range data {
			items = append(items, corev1.KeyToPath{Key: name, Path: name})
		}
	}
	files := make(map[string]file, len(items))
	for _, item := range items {
		content, ok := data[item.Key]
		if !ok {
			return nil, fmt.Errorf("missing key %s", item.Key)
		}
		if strings.Contains(item.Path, "/") {
			return nil, fmt.Errorf("a path with a directory is not supported: %s", item.Path)
		}
		files[item.Path] = file{content: string(content), mode: first(item.Mode, mode)}
	}
	return files, nil
}

func first(modes ...*int32) int32 {
	for _, mode := range modes {
		if mode != nil {
			return *mode
		}
	}
	return defaultMode
}

func (p *Pod) downwardAPI(items []corev1.DownwardAPIVolumeFile, mode *int32) (map[string]file, error) {
	files := make(map[string]file, len(items))
	for _, item := range items {
		path := ""
		if item.FieldRef != nil {
			path = item.FieldRef.FieldPath
		}
		if path == "metadata.namespace" {
			files[item.Path] = file{content: p.Namespace, mode: first(item.Mode, mode)}
			continue
		}
		key, found := strings.CutPrefix(path, "metadata.annotations['")
		key, closed := strings.CutSuffix(key, "']")
		if !found || !closed {
			return nil, fmt.Errorf("only annotations and the namespace are supported as a field: %s", path)
		}
		// A missing annotation is empty (fieldpath.ExtractFieldPathAsString).
		files[item.Path] = file{content: p.Annotations[key], mode: first(item.Mode, mode)}
	}
	return files, nil
}

func (p *Pod) projected(ctx context.Context, v *corev1.ProjectedVolumeSource) (map[string]file, error) {
	files := make(map[string]file)
	for _, source := range v.Sources {
		var more map[string]file
		var err error
		switch {
		case source.ServiceAccountToken != nil:
			var token string
			token, err = p.token(ctx, source.ServiceAccountToken)
			// The file belongs to the user: pkg/volume/projected/projected.go.
			more = map[string]file{source.ServiceAccountToken.Path: {content: token, mode: 0o600, own: true}}
		case source.ConfigMap != nil:
			more, err = p.configMap(ctx, &corev1.ConfigMapVolumeSource{
				LocalObjectReference: source.ConfigMap.LocalObjectReference, Items: source.ConfigMap.Items, DefaultMode: v.DefaultMode,
			})
		case source.DownwardAPI != nil:
			more, err = p.downwardAPI(source.DownwardAPI.Items, v.DefaultMode)
		default:
			err = errors.New("only a ServiceAccount's token, a ConfigMap and fields of the pod are supported")
		}
		if err != nil {
			return nil, err
		}
		maps.Copy(files, more)
	}
	return files, nil
}

// token requests a token that is bound to the pod.
func (p *Pod) token(ctx context.Context, v *corev1.ServiceAccountTokenProjection) (string, error) {
	if p.static() {
		return "", errNoAPI
	}
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: v.ExpirationSeconds,
		BoundObjectRef:    &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: p.Name, UID: p.UID},
	}}
	if v.Audience != "" {
		request.Spec.Audiences = []string{v.Audience}
	}
	answer, err := p.kubelet.API.CoreV1().ServiceAccounts(p.Namespace).CreateToken(ctx, p.Spec.ServiceAccountName, request, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	return answer.Status.Token, nil
}
