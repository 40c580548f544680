// SPDX-License-Identifier: Apache-2.0

package encryptionconfig

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"regexp"
	"sort"
	"strconv"

	yamlnode "go.yaml.in/yaml/v3"
	"sigs.k8s.io/yaml"
)

// document is a configuration as a text, as what kube-apiserver makes of the
// text, and as nodes that know where in the text they are.
type document struct {
	text   []byte
	tree   any
	root   *yamlnode.Node
	config Configuration
}

// parse reads a text and checks it.
func parse(text []byte) (*document, error) {
	root, problems := nodes(text)
	if problems != nil {
		return nil, invalid(problems...)
	}
	tree, err := asAPIServer(text)
	if err != nil {
		return nil, invalid(Problem{Line: lineIn(err), Text: "kube-apiserver does not read this as YAML; put texts into quotes"})
	}
	d := &document{text: text, tree: tree, root: root}
	r := reader{root: root}
	d.config = r.configuration(tree)
	if len(r.problems) == 0 {
		r.validate(d.config)
	}
	if len(r.problems) > 0 {
		return nil, invalid(r.problems...)
	}
	return d, nil
}

// asAPIServer decodes as kube-apiserver's strict decoder does: YAML 1.1 to JSON,
// with which it goes on (Serializer.unmarshal in
// apimachinery/pkg/runtime/serializer/json/json.go).
func asAPIServer(text []byte) (tree any, err error) {
	asJSON, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		return nil, err
	}
	decoder := json.NewDecoder(bytes.NewReader(asJSON))
	decoder.UseNumber()
	err = decoder.Decode(&tree)
	return tree, err
}

// nodes returns the root of the one document in text.
func nodes(text []byte) (*yamlnode.Node, []Problem) {
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, []Problem{{Text: "the file is empty; if it was also where the output went, restore it and use --in-place"}}
	}
	documents, err := decode(text)
	switch {
	case err != nil:
		// The library's text may quote a value, and its line is often another one.
		return nil, []Problem{{Line: firstBadLine(text), Text: "not valid YAML; indent with blanks, not tabs, and see whether the file is cut short"}}
	case len(documents) == 0 || documents[0].Content[0].Tag == "!!null":
		return nil, []Problem{{Text: "the file holds nothing; leave FILE out for a new configuration"}}
	case len(documents) > 1:
		return nil, []Problem{{Line: documents[1].Line, Text: `a second YAML document begins here, which kube-apiserver would pass over; keep one, and remove the "---" between them`}}
	}
	return documents[0].Content[0], plain(documents[0])
}

func decode(text []byte) (documents []*yamlnode.Node, err error) {
	decoder := yamlnode.NewDecoder(bytes.NewReader(text))
	for {
		var document yamlnode.Node
		switch err := decoder.Decode(&document); {
		case errors.Is(err, io.EOF):
			return documents, nil
		case err != nil:
			return nil, err
		}
		documents = append(documents, &document)
	}
}

// firstBadLine returns the line up to which, but not with it, text is YAML.
func firstBadLine(text []byte) int {
	rows := bytes.SplitAfter(text, []byte("\n"))
	return 1 + sort.Search(len(rows), func(i int) bool {
		_, err := decode(bytes.Join(rows[:i+1], nil))
		return err != nil
	})
}

// plain returns what makes an edit unsafe: where a name stands for a text that
// is somewhere else, a change in one place is one in another.
func plain(n *yamlnode.Node) (problems []Problem) {
	refuse := func(text string) { problems = append(problems, Problem{Line: n.Line, Text: text}) }
	switch {
	case n.Kind == yamlnode.AliasNode:
		refuse("YAML aliases (*name) are not edited; write out what it stands for")
	case n.Anchor != "":
		refuse("YAML anchors (&name) are not edited; remove it, and write out the aliases")
	case n.Style&yamlnode.TaggedStyle != 0:
		refuse("YAML tags (!name) are not edited; remove it")
	}
	if n.Kind == yamlnode.MappingNode {
		seen := map[string]bool{}
		for i := 0; i < len(n.Content); i += 2 {
			key := n.Content[i]
			if seen[key.Value] {
				problems = append(problems, Problem{Line: key.Line, Text: "the field is set twice; keep one"})
			}
			seen[key.Value] = true
		}
	}
	for _, c := range n.Content {
		problems = append(problems, plain(c)...)
	}
	return problems
}

var lineText = regexp.MustCompile(`\bline (\d+)`)

func lineIn(err error) int {
	if found := lineText.FindStringSubmatch(err.Error()); found != nil {
		line, _ := strconv.Atoi(found[1])
		return line
	}
	return 0
}

// node returns the node at a path, or the last one on the way to it, and the
// line it begins at.
func node(root *yamlnode.Node, p path) (at *yamlnode.Node, line int) {
	at, line = root, root.Line
	for _, step := range p {
		next := (*yamlnode.Node)(nil)
		switch s := step.(type) {
		case int:
			if at.Kind == yamlnode.SequenceNode && s < len(at.Content) {
				next = at.Content[s]
				line = next.Line
			}
		case string:
			if at.Kind != yamlnode.MappingNode {
				break
			}
			for i := 0; i < len(at.Content); i += 2 {
				if at.Content[i].Value == s {
					next, line = at.Content[i+1], at.Content[i].Line
				}
			}
		}
		if next == nil {
			return at, line
		}
		at = next
	}
	return at, line
}
