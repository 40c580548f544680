// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"bytes"
	"fmt"
)

// verbatim is a codec that sends bytes as they are in protobuf's name, so that a
// message can be one that no protobuf library would make.
type verbatim struct{}

func (verbatim) Name() string { return "proto" }

func (verbatim) Marshal(v any) ([]byte, error) {
	message, ok := v.([]byte)
	if !ok {
		return nil, fmt.Errorf("sending a %T as it is", v)
	}
	return message, nil
}

func (verbatim) Unmarshal(data []byte, v any) error {
	reply, ok := v.(*[]byte)
	if !ok {
		return fmt.Errorf("receiving a %T as it is", v)
	}
	*reply = bytes.Clone(data)
	return nil
}
