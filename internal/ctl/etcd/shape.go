// SPDX-License-Identifier: Apache-2.0

package etcd

import (
	"encoding/binary"
	"errors"
	"io"
)

// shape checks the page tree of a database without a checksum: bbolt trusts the pages,
// and would follow a cycle forever.
//
// A page begins with its number (8 bytes), its kind (2), its number of elements (2)
// and its number of overflow pages (4). An element of a branch has 16 bytes; the last
// 8 are the number of a page (internal/common/page.go of go.etcd.io/bbolt). The byte
// order is that of the machine that wrote the file.
type shape struct {
	file     io.ReaderAt
	size     int64 // of the file
	pageSize int64
	seen     map[uint64]struct{}
}

const (
	headSize    = 16
	elementSize = 16
	branchPage  = 0x01
	leafPage    = 0x02
)

var errShape = errors.New("its pages are inconsistent")

// check follows the pages from root on. Each must be a page of a tree, and none may
// occur twice.
func (s *shape) check(root uint64) error {
	for todo := []uint64{root}; len(todo) > 0; {
		page := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if _, twice := s.seen[page]; twice {
			return errShape
		}
		s.seen[page] = struct{}{}
		children, err := s.children(page)
		if err != nil {
			return err
		}
		todo = append(todo, children...)
	}
	return nil
}

// children returns the pages that a page points to.
func (s *shape) children(page uint64) ([]uint64, error) {
	head, err := s.read(page, headSize)
	if err != nil {
		return nil, err
	}
	order := binary.NativeEndian
	kind, count := order.Uint16(head[8:]), int64(order.Uint16(head[10:]))
	pages := int64(order.Uint32(head[12:])) + 1
	switch {
	case order.Uint64(head) != page, pages*s.pageSize > s.size, headSize+count*elementSize > pages*s.pageSize:
		return nil, errShape
	case kind == leafPage:
		return nil, nil
	case kind != branchPage, count == 0:
		return nil, errShape
	}
	text, err := s.read(page, headSize+count*elementSize)
	if err != nil {
		return nil, err
	}
	children := make([]uint64, count)
	for i := range children {
		children[i] = order.Uint64(text[headSize+(i+1)*elementSize-8:])
	}
	return children, nil
}

// read reads the first bytes of a page.
func (s *shape) read(page uint64, n int64) ([]byte, error) {
	if page > uint64((s.size-n)/s.pageSize) {
		return nil, errShape
	}
	text := make([]byte, n)
	if _, err := s.file.ReadAt(text, int64(page)*s.pageSize); err != nil {
		return nil, err
	}
	return text, nil
}
