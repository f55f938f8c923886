package hub

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// ErrNoPosition is returned for an ID that is none of a message of this epoch.
var ErrNoPosition = errors.New("it is no ID of a message of this epoch")

// KeptMessages returns the messages of a channel that are kept after a position, the oldest first: at most limit of them, and
// at most size bytes, but one at least. more reports whether others follow. If after is empty it begins with the
// oldest, or with last so that it ends with the newest. The error is ErrNoPosition, or ErrNotReady if a shared log does not answer.
func (h *Hub) KeptMessages(ctx context.Context, name, after string, last bool, limit, size int) (ms []*Message, more bool, err error) {
	h.mu.Lock()
	s, own := h.log, h.epoch
	h.mu.Unlock()
	next := uint64(0)
	if after != "" {
		epoch, seq, ok := parseID(after)
		if !ok || epoch != own {
			return nil, false, ErrNoPosition
		}
		next = seq + 1
	}
	if s != nil {
		all, err := s.kept(ctx, name)
		if err != nil {
			return nil, false, err
		}
		from, _ := slices.BinarySearchFunc(all, next, func(m *Message, seq uint64) int { return cmp.Compare(m.Seq, seq) })
		if last {
			from = max(from, len(all)-limit)
		}
		ms, more = appendPage(nil, all[from:], limit, &size)
		return ms, more, nil
	}
	ms, more = h.keptLocally(name, next, last, limit, size)
	return ms, more, nil
}

// appendPage appends messages until there are limit, or they have size bytes, and reports whether some are left.
func appendPage(page, ms []*Message, limit int, size *int) (out []*Message, more bool) {
	for _, m := range ms {
		if len(page) == limit || len(page) > 0 && *size < len(m.Data) {
			return page, true
		}
		*size -= len(m.Data)
		page = append(page, m)
	}
	return page, false
}

// keptLocally returns those of the hub's own log.
func (h *Hub) keptLocally(name string, next uint64, last bool, limit, size int) (ms []*Message, more bool) {
	h.trimAll(int(h.maxHistoryBytes())) // the timer may be late, and nobody reads what is older than history_age
	most, step := math.MaxInt, (*stored).older
	if last {
		most = limit
	}
	fromOldest := next == 0 && !last
	if fromOldest {
		most, step = limit+1, (*stored).newer // one more, to see whether others follow
	}
	h.mu.Lock()
	var s *stored
	if ch := h.channels[name]; ch != nil {
		if s = ch.history.newest; fromOldest {
			s = ch.history.oldest
		}
	}
	for s != nil && s.message.Seq >= next && len(ms) < most {
		ms, s = append(ms, s.message), step(s)
		// In pieces. In between messages may be dropped, also the next one here, and others may come, which need not be read.
		if len(ms)%atOnce == 0 {
			h.mu.Unlock()
			runtime.Gosched() // see inPieces
			h.mu.Lock()
		}
	}
	h.mu.Unlock()
	if !fromOldest {
		slices.Reverse(ms)
	}
	return appendPage(nil, ms, limit, &size)
}

// kept returns all that is kept of a channel, as the log has it. That may be more than this node does, which has only what its
// clients have asked for. It is not put into the history, where it would take the place of what they need.
func (s *sharedLog) kept(ctx context.Context, name string) ([]*Message, error) {
	h := s.hub
	h.mu.Lock()
	count, age := h.config.keepOf(name)
	size, era, from := h.config.historyBytes(), s.era, h.origin
	most, _ := h.config.mostKept()
	ready := s.currentLocked() && s.settled && s.losing == nil && !s.partitioned
	h.mu.Unlock()
	switch {
	case !ready:
		return nil, ErrNotReady
	case count == 0 || ownChannel(name) || CheckName("the channel", name) != nil:
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, positionTime)
	defer cancel()
	var es []broker.Entry
	err := takePlace(ctx, s.reads, func() (err error) {
		es, err = s.last(ctx, name, count, most, size)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotReady, err)
	}
	h.mu.Lock()
	current := s.currentLocked() && s.era == era
	h.mu.Unlock()
	if !current {
		return nil, ErrNotReady
	}
	now := time.Now()
	clock := s.clock(now)
	replaced := make(map[ConflateKey]bool)
	var ms []*Message // the newest first
	for _, e := range slices.Backward(es) {
		if len(ms) == count {
			break
		}
		m := messageOf(&e, storedAt(&e, clock, now))
		if m == nil || m.Transient || age > 0 && now.Sub(m.Time) >= age || m.Conflate.IsSet() && replaced[m.Conflate] {
			continue
		}
		replaced[m.Conflate] = true
		m.origin = from
		ms = append(ms, m)
	}
	slices.Reverse(ms)
	return ms, nil
}
