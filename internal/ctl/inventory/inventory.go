// SPDX-License-Identifier: Apache-2.0

// Package inventory reads the file that lists an operator's clusters.
package inventory

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// Cluster is one entry of the file. Paths in it are relative to the file's directory
// until Read has resolved them.
type Cluster struct {
	// Name identifies the cluster in the file and in every output.
	Name string `json:"name"`
	// Kubeconfig and Context reach the cluster's API, where the nodes are found. Namespace
	// and Selector find the plugin's pods there.
	Kubeconfig string `json:"kubeconfig,omitempty"`
	Context    string `json:"context,omitempty"`
	Namespace  string `json:"namespace,omitempty"`
	Selector   string `json:"selector,omitempty"`
	// Ops are the addresses of the nodes' ops endpoints, for nodes that are not pods.
	Ops []string `json:"ops,omitempty"`
	// Vault is where an administrator works; nil for the environment's VAULT_ADDR.
	Vault *Vault `json:"vault,omitempty"`
	// These are flags of commands, by name without dashes.
	Audit       Flags `json:"audit,omitempty"`
	Doctor      Flags `json:"doctor,omitempty"`
	RotateToken Flags `json:"rotate-token,omitempty"`
	Status      Flags `json:"status,omitempty"`
}

// Vault replaces the environment's VAULT_ variables, so that no token goes to another
// server than its own.
type Vault struct {
	Address   string `json:"address"`
	Namespace string `json:"namespace,omitempty"`
	CACert    string `json:"caCert,omitempty"`
	// TokenFile or TokenEnv, the name of a variable, holds the administrator's token.
	TokenFile string `json:"tokenFile,omitempty"`
	TokenEnv  string `json:"tokenEnv,omitempty"`
}

// Flags are values of a command's flags. A list sets a flag several times.
type Flags map[string]Values

// Values are the values of one flag: in the file a string, a number, a boolean, or a
// list of these.
type Values []string

// UnmarshalJSON implements json.Unmarshaler. There are no values if it is something
// else: resolve then reports it, with the name of the flag.
func (v *Values) UnmarshalJSON(text []byte) error {
	var list []json.RawMessage
	if json.Unmarshal(text, &list) != nil {
		list = []json.RawMessage{text}
	}
	*v = nil
	for _, one := range list {
		var s string
		switch err := json.Unmarshal(one, &s); {
		case err == nil && !bytes.Equal(one, []byte("null")):
			*v = append(*v, s)
		case bytes.ContainsAny(one[:1], "tf-0123456789"):
			*v = append(*v, string(one))
		default:
			*v = nil
			return nil
		}
	}
	return nil
}

// Command returns the flags for a command.
func (c Cluster) Command(name string) Flags { return c.commands()[name] }

func (c Cluster) commands() map[string]Flags {
	return map[string]Flags{"audit": c.Audit, "doctor": c.Doctor, "rotate-token": c.RotateToken, "status": c.Status}
}

// Environment returns the VAULT_ variables for an administrator; nil if they are those
// of the environment, which getenv returns.
func (c Cluster) Environment(getenv func(string) string) (map[string]string, error) {
	if c.Vault == nil {
		return nil, nil
	}
	token := ""
	if c.Vault.TokenEnv != "" {
		if token = getenv(c.Vault.TokenEnv); token == "" {
			return nil, fmt.Errorf("vault.tokenEnv: the variable %s is not set", c.Vault.TokenEnv)
		}
	} else {
		text, err := os.ReadFile(c.Vault.TokenFile)
		if err != nil {
			return nil, fmt.Errorf("vault.tokenFile: %w", err)
		}
		token = strings.TrimSpace(string(text))
	}
	return map[string]string{
		"VAULT_ADDR": c.Vault.Address, "VAULT_NAMESPACE": c.Vault.Namespace, "VAULT_CACERT": c.Vault.CACert, "VAULT_TOKEN": token,
	}, nil
}

// Read reads a file. Its errors name the file, the cluster and the field. isFile reports
// whether the value of a command's flag is the name of a file, or that there is no such
// flag.
func Read(file string, isFile func(command, flag string) (bool, error)) ([]Cluster, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err // it names the file
	}
	clusters, err := parse(text, filepath.Dir(file), isFile)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return clusters, nil
}

func parse(text []byte, dir string, isFile func(command, flag string) (bool, error)) ([]Cluster, error) {
	document, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		return nil, err
	}
	var top struct {
		APIVersion string            `json:"apiVersion"`
		Kind       string            `json:"kind"`
		Clusters   []json.RawMessage `json:"clusters"`
	}
	if err := decode(document, &top); err != nil {
		return nil, err
	}
	switch {
	case top.APIVersion != "trousseau.io/v1":
		return nil, fmt.Errorf("apiVersion: %q is not trousseau.io/v1", top.APIVersion)
	case top.Kind != "Inventory":
		return nil, fmt.Errorf("kind: %q is not Inventory", top.Kind)
	case len(top.Clusters) == 0:
		return nil, errors.New("clusters: name at least one")
	}
	var clusters []Cluster
	for i, entry := range top.Clusters {
		var named struct {
			Name string `json:"name"`
		}
		_ = json.Unmarshal(entry, &named) // decode reports the error
		where := "cluster " + named.Name
		if !nameRule.MatchString(named.Name) {
			where = fmt.Sprintf("clusters[%d]", i)
		}
		var c Cluster
		if err := decode(entry, &c); err != nil {
			return nil, fmt.Errorf("%s: %w", where, err)
		}
		if err := c.check(); err != nil {
			return nil, fmt.Errorf("%s: %w", where, err)
		}
		if slices.ContainsFunc(clusters, func(other Cluster) bool { return other.Name == c.Name }) {
			return nil, fmt.Errorf("%s: name: another cluster has it too", where)
		}
		if err := c.resolve(dir, isFile); err != nil {
			return nil, fmt.Errorf("%s: %w", where, err)
		}
		clusters = append(clusters, c)
	}
	return clusters, nil
}

// decode refuses unknown fields, and names the field that has a wrong type.
func decode(text []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(into)
	var mistake *json.UnmarshalTypeError
	switch {
	case errors.As(err, &mistake) && mistake.Field != "":
		return fmt.Errorf("%s: a %s is not allowed here", mistake.Field, mistake.Value)
	case errors.As(err, &mistake):
		return fmt.Errorf("want fields, not a %s", mistake.Value)
	case err != nil:
		return errors.New(strings.TrimPrefix(err.Error(), "json: "))
	}
	return nil
}

// nameRule lets a name be a word of a command line, and a line of a table.
var nameRule = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$`)

func (c Cluster) check() error {
	switch {
	case c.Name == "":
		return errors.New("name: is missing")
	case !nameRule.MatchString(c.Name):
		return fmt.Errorf("name: %q: want at most 63 letters, digits, dots, dashes and underscores", c.Name)
	case c.Kubeconfig == "" && c.Context == "" && len(c.Ops) == 0:
		return errors.New("kubeconfig, context or ops is missing: one of them says how to reach the nodes")
	}
	if v := c.Vault; v != nil {
		switch {
		case v.Address == "":
			return errors.New("vault.address: is missing")
		case (v.TokenFile == "") == (v.TokenEnv == ""):
			return errors.New("vault.tokenFile: give it or vault.tokenEnv: the environment's VAULT_TOKEN is not sent to this address")
		}
	}
	return nil
}

// resolve makes paths absolute or relative to the working directory, and checks the names of the flags.
func (c *Cluster) resolve(dir string, isFile func(command, flag string) (bool, error)) error {
	path := func(p *string) {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
	path(&c.Kubeconfig)
	if c.Vault != nil {
		path(&c.Vault.CACert)
		path(&c.Vault.TokenFile)
	}
	for command, flags := range c.commands() {
		for name, values := range flags {
			is, err := isFile(command, name)
			if err != nil {
				return fmt.Errorf("%s.%s: %w", command, name, err)
			}
			if len(values) == 0 {
				return fmt.Errorf("%s.%s: want a string, a number, a boolean, or a list of these", command, name)
			}
			for i := range values {
				if is {
					path(&values[i])
				}
			}
		}
	}
	return nil
}
