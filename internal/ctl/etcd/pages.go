// SPDX-License-Identifier: Apache-2.0

package etcd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Read reads as [Reader] says, in pages, in the order of the keys, and all at the
// revision of the first page. If that is compacted before the end (kube-apiserver
// compacts what is older than five minutes), it continues from the current key at the
// newest revision, and records that in Resumptions. Each key is still read once, but
// an object that was written in the meantime is read in its old or its new form.
func (l *Live) Read(ctx context.Context, prefixes []string, each func(Object) error) (Reading, error) {
	if err := CheckPrefixes(prefixes); err != nil {
		return Reading{}, err
	}
	p := &pages{live: l, size: l.opts.PageSize}
	spans := make([]span, 0, 2*len(prefixes)+1)
	for _, prefix := range prefixes {
		spans = append(spans, span{prefix, clientv3.GetPrefixRangeEnd(prefix), each})
	}
	if l.Outside != nil {
		spans = append(spans, between(prefixes, l.Outside)...)
	}
	for i, s := range spans {
		err := p.count(ctx, s)
		switch {
		case i >= len(prefixes) && errors.Is(err, rpctypes.ErrPermissionDenied):
			p.reading.OutsideDenied = true
			spans[i].each = nil
		case err != nil:
			return Reading{}, p.failed(ctx, err)
		}
	}
	for _, s := range spans {
		if s.each == nil {
			continue
		}
		if err := p.read(ctx, s); err != nil {
			return Reading{}, err
		}
	}
	l.opts.Progress.tell(StepReading, p.done, p.done)
	return p.reading, nil
}

// span is the keys from from on and before end, and what to call for each.
type span struct {
	from, end string
	each      func(Object) error
}

// lastKey is the end of a span without an end, and first of all keys.
const lastKey = "\x00"

// between returns the spans of all keys without any of the prefixes.
func between(prefixes []string, each func(Object) error) []span {
	all := make([]span, 0, len(prefixes)+1)
	from := lastKey
	for _, p := range slices.Sorted(slices.Values(prefixes)) {
		all = append(all, span{from, p, each})
		from = clientv3.GetPrefixRangeEnd(p)
	}
	return append(all, span{from, lastKey, each})
}

// patience is how often a revision may be compacted before one page has been read.
const patience = 3

// pages is one reading.
type pages struct {
	live        *Live
	size        int   // of a page, in objects
	revision    int64 // 0 is the newest
	done, total int64
	reading     Reading
}

// count counts the keys, and chooses the revision.
func (p *pages) count(ctx context.Context, s span) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	answer, err := p.get(ctx, s.from, clientv3.WithRange(s.end), clientv3.WithCountOnly())
	if err != nil {
		return err
	}
	p.total += answer.Count
	if p.revision == 0 {
		p.revision = answer.Header.Revision
		p.reading.Revision = p.revision
	}
	return nil
}

func (p *pages) read(ctx context.Context, s span) error {
	for from := s.from; ; {
		answer, err := p.get(ctx, from, clientv3.WithRange(s.end), clientv3.WithLimit(int64(p.size)), clientv3.WithRev(p.revision))
		switch {
		case errors.Is(err, rpctypes.ErrCompacted):
			if err := p.resume(ctx, from); err != nil {
				return err
			}
			continue
		case tooLarge(err) && p.size > 1:
			p.size /= 2
			continue
		case err != nil:
			return p.failed(ctx, err)
		}
		for _, kv := range answer.Kvs {
			if err := s.each(Object{Key: kv.Key, Value: kv.Value, Revision: kv.ModRevision}); err != nil {
				return err
			}
		}
		p.done += int64(len(answer.Kvs))
		p.live.opts.Progress.tell(StepReading, p.done, max(p.done, p.total))
		if !answer.More || len(answer.Kvs) == 0 {
			return nil
		}
		// The least key that is greater than the last one.
		from = string(answer.Kvs[len(answer.Kvs)-1].Key) + "\x00"
	}
}

// resume takes the newest revision, to continue at key from.
func (p *pages) resume(ctx context.Context, from string) error {
	if n := len(p.reading.Resumptions); n >= patience && p.reading.Resumptions[n-patience].Key == from {
		return fmt.Errorf("reading etcd: the revision was compacted %d times in a row before one page was read: audit a snapshot instead", patience)
	}
	answer, err := p.get(ctx, from, clientv3.WithCountOnly())
	if err != nil {
		return p.failed(ctx, err)
	}
	p.revision = answer.Header.Revision
	p.reading.Resumptions = append(p.reading.Resumptions, Resumption{Revision: p.revision, Key: from})
	return nil
}

func (p *pages) failed(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	return unreachable(p.live.opts.Endpoints, err)
}

func (p *pages) get(ctx context.Context, key string, options ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, p.live.opts.Timeout)
	defer cancel()
	return p.live.client.Get(ctx, key, options...)
}

// tooLarge reports whether an answer was larger than PageBytes. gRPC refuses it before
// reading it.
func tooLarge(err error) bool {
	return err != nil && !errors.Is(err, rpctypes.ErrTooManyRequests) && status.Code(err) == codes.ResourceExhausted
}
