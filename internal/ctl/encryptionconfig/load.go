// SPDX-License-Identifier: Apache-2.0

package encryptionconfig

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	yamlnode "go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/apis/apiserver"
	serverv1 "k8s.io/apiserver/pkg/apis/apiserver/v1"
	"k8s.io/apiserver/pkg/apis/apiserver/validation"
)

// codecs are kube-apiserver's for this file (init in
// pkg/server/options/encryptionconfig/config.go).
var codecs = sync.OnceValue(func() serializer.CodecFactory {
	scheme := runtime.NewScheme()
	if err := errors.Join(apiserver.AddToScheme(scheme), serverv1.AddToScheme(scheme)); err != nil {
		panic(err) // the types are compiled in
	}
	return serializer.NewCodecFactory(scheme, serializer.EnableStrict)
})

// load decodes and validates with kube-apiserver's own code (loadConfig in that file,
// without automatic reload). root is for the lines of the problems.
func load(text []byte, root *yamlnode.Node) (*apiserver.EncryptionConfiguration, []Problem) {
	if kind, _ := node(root, "kind"); kind != root && !slices.Contains(kinds, kind.Value) {
		return nil, []Problem{problem(root, "kind", "is %q, want EncryptionConfiguration: check that this is the file of --encryption-provider-config", kind.Value)}
	}
	object, _, err := codecs().UniversalDecoder().Decode(text, nil, nil)
	if err != nil {
		return nil, undecoded(err, root)
	}
	config, _ := object.(*apiserver.EncryptionConfiguration)
	var problems []Problem
	for _, e := range validation.ValidateEncryptionConfiguration(config, false) {
		problems = append(problems, problem(root, e.Field, "%s", said(e)))
	}
	return config, append(problems, masked(config, root)...)
}

// kinds are those that kube-apiserver takes for this file (addKnownTypes in
// pkg/apis/apiserver/v1/register.go).
var kinds = []string{"", "EncryptionConfiguration", "EncryptionConfig"}

// wants are the types of fields, for people.
var wants = map[reflect.Kind]string{
	reflect.String: "a string; put it into quotes",
	reflect.Int32:  "a whole number",
	reflect.Slice:  "a list, each item after a -",
}

var quotedField = regexp.MustCompile(`^(unknown|duplicate) field ("(?:[^"\\]|\\.)*")$`)

// undecoded explains an error of the decoder. Some of them quote the whole file, with
// its keys, so only those that are known are shown.
func undecoded(err error, root *yamlnode.Node) []Problem {
	var wrong *json.UnmarshalTypeError
	switch {
	case runtime.IsMissingKind(err):
		return []Problem{problem(root, "kind", "is missing; write kind: EncryptionConfiguration")}
	case runtime.IsMissingVersion(err):
		return []Problem{problem(root, "apiVersion", "is missing; write apiVersion: apiserver.config.k8s.io/v1")}
	case runtime.IsNotRegisteredError(err):
		return []Problem{problem(root, "apiVersion", "is not that of EncryptionConfiguration; write apiVersion: apiserver.config.k8s.io/v1")}
	case errors.As(err, &wrong):
		return []Problem{problem(nil, wrong.Field, "has JSON type %s, want %s", wrong.Value, cmp.Or(wants[wrong.Type.Kind()], "fields, each as name: value"))}
	case strings.HasPrefix(err.Error(), "time: "):
		return []Problem{problem(nil, "", "a timeout is not a duration such as 3s: %s", err)}
	}
	strict, ok := runtime.AsStrictDecodingError(err)
	if !ok {
		return []Problem{{Line: lineIn(err), Text: "kube-apiserver cannot read this as YAML; quote strings"}}
	}
	var problems []Problem
	for _, err := range strict.Errors() {
		p := Problem{Line: lineIn(err), Text: "kube-apiserver cannot read this as YAML; quote strings"}
		if found := quotedField.FindStringSubmatch(err.Error()); found != nil {
			name, _ := strconv.Unquote(found[2])
			p = problem(root, name, "%s field", found[1])
		}
		problems = append(problems, p)
	}
	return problems
}

// said is kube-apiserver's text about a field, with the value if that is short.
func said(e *field.Error) string {
	switch e.BadValue.(type) {
	case string, int32:
		return e.ErrorBody()
	}
	return e.Detail
}

// masked finds resources that an earlier wildcard hides
// (getTransformerOverridesAndKMSPluginProbes, which would also call the plugins).
func masked(c *apiserver.EncryptionConfiguration, root *yamlnode.Node) (problems []Problem) {
	seen := map[groupResource]bool{}
	for i, r := range c.Resources {
		for j, g := range parseResources(r.Resources) {
			for _, wildcard := range g.within() {
				if seen[wildcard] {
					problems = append(problems, problem(root, fmt.Sprintf("resources[%d].resources[%d]", i, j), "%q is masked by earlier rule %q; move it to an item before that one, or remove it", g, wildcard))
					break
				}
			}
			seen[g] = true
		}
	}
	return problems
}
