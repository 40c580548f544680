// SPDX-License-Identifier: Apache-2.0

package encryptionconfig

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"sort"
	"strconv"

	yamlnode "go.yaml.in/yaml/v3"
	"k8s.io/apiserver/pkg/apis/apiserver"
)

// document is a configuration in three forms: text, what kube-apiserver loads from
// it, and YAML nodes with their positions in the text.
type document struct {
	text   []byte
	root   *yamlnode.Node
	loaded *apiserver.EncryptionConfiguration
}

// parse parses and checks a text.
func parse(text []byte) (*document, error) {
	root, problems := nodes(text)
	if problems != nil {
		return nil, invalid(problems...)
	}
	loaded, problems := load(text, root)
	if problems != nil {
		return nil, invalid(problems...)
	}
	return &document{text: text, root: root, loaded: loaded}, nil
}

// nodes returns the root of the one document in text.
func nodes(text []byte) (*yamlnode.Node, []Problem) {
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, []Problem{{Text: "the file is empty; if you redirected the output to it, restore it and use --in-place"}}
	}
	documents, err := decode(text)
	switch {
	case err != nil:
		// The library's error may quote a value, and its line is often wrong.
		return nil, []Problem{{Line: firstBadLine(text), Text: "not valid YAML; indent with blanks, not tabs, and check that the file is complete"}}
	case len(documents) == 0 || documents[0].Content[0].Tag == "!!null":
		return nil, []Problem{{Text: "the file has no content; omit FILE for a new configuration"}}
	case documents[0].Content[0].Kind != yamlnode.MappingNode:
		return nil, []Problem{{Line: documents[0].Content[0].Line, Text: "want fields, each as name: value"}}
	case len(documents) > 1:
		return nil, []Problem{{Line: documents[1].Line, Text: `a second YAML document begins here, which kube-apiserver ignores; keep one, and remove the "---" between them`}}
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

// firstBadLine returns the first line with which the text is no longer YAML.
func firstBadLine(text []byte) int {
	rows := bytes.SplitAfter(text, []byte("\n"))
	return 1 + sort.Search(len(rows), func(i int) bool {
		_, err := decode(bytes.Join(rows[:i+1], nil))
		return err != nil
	})
}

// plain returns what makes an edit unsafe: aliases and anchors, with which a change in
// one place changes another, and tags and duplicate fields.
func plain(n *yamlnode.Node) (problems []Problem) {
	refuse := func(text string) { problems = append(problems, Problem{Line: n.Line, Text: text}) }
	switch {
	case n.Kind == yamlnode.AliasNode:
		refuse("YAML aliases (*name) are not supported; replace it by its value")
	case n.Anchor != "":
		refuse("YAML anchors (&name) are not supported; remove it, and replace its aliases by their value")
	case n.Style&yamlnode.TaggedStyle != 0:
		refuse("YAML tags (!name) are not supported; remove it")
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

var fieldStep = regexp.MustCompile(`[^.\[\]]+`)

// node returns the node of a field such as resources[0].providers, or its last ancestor
// that exists, and the line where it begins.
func node(root *yamlnode.Node, field string) (at *yamlnode.Node, line int) {
	at, line = root, root.Line
	for _, step := range fieldStep.FindAllString(field, -1) {
		next := (*yamlnode.Node)(nil)
		switch at.Kind {
		case yamlnode.SequenceNode:
			if i, err := strconv.Atoi(step); err == nil && i < len(at.Content) {
				next = at.Content[i]
				line = next.Line
			}
		case yamlnode.MappingNode:
			for i := 0; i < len(at.Content); i += 2 {
				if at.Content[i].Value == step {
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
