// SPDX-License-Identifier: Apache-2.0

package config

import (
	"path/filepath"
	"slices"

	"go.yaml.in/yaml/v3"
)

// fileFields are the fields of the vault section whose value is the name of a file.
var fileFields = []string{"vaultCACert", "clientCert", "clientKey", "tokenFile"}

// References returns the absolute names of the files that data, the content of config.yaml, names: sorted, each once,
// spelled as [Parse] passes them to its Opener. It looks past mistakes, so that a configuration that is wrong because
// of such a file can be tried again when the file changes. It returns nil when data is not YAML or names no file.
func References(data []byte) (names []string) {
	root, _ := decode(data)
	for _, vault := range valuesOf(root, "", "vault") {
		for _, field := range fileFields {
			for _, value := range valuesOf(vault, "vault", field) {
				if name := plainText(value); value.Kind == yaml.ScalarNode && filepath.IsAbs(name) {
					names = append(names, name)
				}
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// valuesOf returns every value that mapping, the section of that name, gives to a field; none when it is no mapping.
func valuesOf(mapping *yaml.Node, section, name string) (values []*yaml.Node) {
	if mapping == nil || mapping.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if spelling, _ := knownField(section, mapping.Content[i].Value); spelling == name {
			values = append(values, mapping.Content[i+1])
		}
	}
	return values
}
