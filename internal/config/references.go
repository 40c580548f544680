// SPDX-License-Identifier: Apache-2.0

package config

import (
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// fileFields are the fields of the vault section whose value is the name of a file.
var fileFields = []string{"vaultCACert", "clientCert", "clientKey", "tokenFile", "secretIDFile"}

// References returns the absolute names of the files that data, the content of config.yaml, names: sorted, each once,
// spelled as [Parse] passes them to its Opener. A file that is read without being named, since kubernetes has no
// tokenFile, is among them. References looks past mistakes, so that a configuration that is wrong because of such a
// file can be tried again when the file changes. It returns nil when data is not YAML or names no file.
func References(data []byte) (names []string) {
	root, _ := decode(data)
	for _, vault := range valuesOf(root, "", "vault") {
		for _, field := range fileFields {
			names = append(names, filesOf(vault, "vault", field)...)
		}
		for _, jwt := range valuesOf(vault, "vault", "jwt") {
			names = append(names, filesOf(jwt, "vault.jwt", "tokenFile")...)
		}
		for _, kubernetes := range valuesOf(vault, "vault", "kubernetes") {
			names = append(names, filesOf(kubernetes, "vault.kubernetes", "tokenFile")...)
			// Read as Parse does, so that both agree on whether the field is there.
			if s := new(parser).section(place{field: "vault.kubernetes"}, kubernetes); s != nil && !s.has("tokenFile") {
				names = append(names, serviceAccountFile)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// filesOf returns every absolute file name that mapping, the section of that name, gives to a field.
func filesOf(mapping *yaml.Node, section, field string) (names []string) {
	for _, value := range valuesOf(mapping, section, field) {
		if name := plainText(value); value.Kind == yaml.ScalarNode && filepath.IsAbs(name) {
			names = append(names, name)
		}
	}
	return names
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

// plainText returns a scalar as Parse reads it.
func plainText(n *yaml.Node) string { return strings.TrimSpace(n.Value) }
