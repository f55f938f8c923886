package hub

import (
	"cmp"
	"slices"
	"sync/atomic"
	"time"
)

// history keeps the last messages of each channel, within a count and an age a channel and a size over all. What is
// oldest goes first. Hub.mu guards it.
type history struct {
	bytes atomic.Int64
	count int      // messages kept
	order []stored // those, in the order of the log, among some that are gone
	timer *time.Timer
}

// stored says where a message is kept.
type stored struct {
	channel *channel
	seq     uint64
}

// remember keeps a message in its channel's history. The caller holds h.mu.
func (h *Hub) remember(ch *channel, m *Message) {
	hi := &h.history
	ch.history = append(ch.history, m)
	hi.order = append(hi.order, stored{ch, m.Seq})
	hi.bytes.Add(int64(m.cost()))
	h.keep(m)
	hi.count++
	if len(ch.history) > h.options.History {
		h.dropOldest(ch)
	}
	h.trim(m.Time)
}

// dropOldest drops the oldest message of a channel. The caller holds h.mu.
func (h *Hub) dropOldest(ch *channel) {
	hi := &h.history
	hi.bytes.Add(-int64(ch.history[0].cost()))
	ch.lost = ch.history[0].Seq
	hi.count--
	ch.history[0].dropped.Store(true)
	h.letGo(ch.history[:1])
	ch.history[0] = nil
	if ch.history = ch.history[1:]; len(ch.history) == 0 {
		ch.history = nil
		h.release(ch)
	}
}

// trim drops what is too old or too much. The caller holds h.mu.
func (h *Hub) trim(now time.Time) { h.trimTo(h.options.historyBytes(), now) }

// trimTo drops what is too old or more than so many bytes, and sees to it that what grows old is dropped in time. The
// caller holds h.mu.
func (h *Hub) trimTo(size int, now time.Time) {
	hi := &h.history
	gone := 0
	for _, k := range hi.order {
		if k.gone() {
			gone++
			continue
		}
		old := h.options.HistoryAge > 0 && now.Sub(k.channel.history[0].Time) >= h.options.HistoryAge
		if !old && hi.bytes.Load() <= int64(size) {
			break
		}
		h.dropOldest(k.channel)
		gone++
	}
	hi.order = hi.order[gone:]
	if len(hi.order) > 2*hi.count+1024 { // a busy channel's, behind what a quiet one keeps
		hi.order = slices.DeleteFunc(slices.Clone(hi.order), stored.gone)
	}
	if len(hi.order) == 0 {
		hi.order = nil
	} else if h.options.HistoryAge > 0 && hi.timer == nil {
		oldest := hi.order[0].channel.history[0].Time
		hi.timer = time.AfterFunc(oldest.Add(h.options.HistoryAge).Sub(now), h.expire)
	}
}

// expire drops what has grown old, though nothing is published.
func (h *Hub) expire() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.history.timer = nil
	if !h.closed {
		h.trim(time.Now())
	}
}

// gone says whether the message has left its channel's history, which it does in order.
func (k stored) gone() bool {
	return len(k.channel.history) == 0 || k.channel.history[0].Seq > k.seq
}

// shorten applies new bounds to what is kept already. The caller holds h.mu.
func (h *Hub) shorten() {
	for _, ch := range h.channels {
		for len(ch.history) > h.options.History {
			h.dropOldest(ch)
		}
	}
	if t := h.history.timer; t != nil {
		t.Stop()
		h.history.timer = nil
	}
	h.trim(time.Now())
}

// Welcome is what a connection, or a channel of it, starts from.
type Welcome struct {
	// ID is the position: who resumes after it gets all that comes from here on, beginning with what is replayed.
	ID string
	// Resumed says that it goes on where it was, and misses nothing.
	Resumed bool
	// Lost are the channels of which it may miss messages. Of them nothing is replayed.
	Lost []string
}

// since returns what a subscriber of the channels starts with: from lastID on, if that is set, or the last n messages,
// in the order of the log and within the limit in bytes. The caller holds h.mu.
func (h *Hub) since(channels []string, lastID string, n, limit int) (ms []*Message, w Welcome) {
	w.ID = FormatID(h.epoch, h.seq)
	if lastID == "" {
		ms = h.last(channels, n, limit)
	} else {
		ms, w.Lost = h.after(channels, lastID, limit)
		w.Resumed = w.Lost == nil
	}
	if len(ms) > 0 {
		w.ID = FormatID(h.epoch, ms[0].Seq-1)
	}
	return ms, w
}

// after returns all messages of the channels after an ID, but for channels of which some are lost. What is longer than
// the limit is lost as a whole. The caller holds h.mu.
func (h *Hub) after(channels []string, id string, limit int) (ms []*Message, lost []string) {
	epoch, seq, good := parseID(id)
	if !good || epoch != h.epoch || seq > h.seq {
		return nil, channels
	}
	h.trim(time.Now())
	size := 0
	for _, name := range channels {
		ch := h.channels[name]
		switch {
		case ch == nil && h.lost > seq, ch != nil && ch.lost > seq:
			lost = append(lost, name)
		case ch != nil:
			first, _ := slices.BinarySearchFunc(ch.history, seq+1, func(m *Message, seq uint64) int {
				return cmp.Compare(m.Seq, seq)
			})
			if first == len(ch.history) {
				continue
			}
			ms = append(ms, ch.history[first:]...)
			for _, m := range ch.history[first:] {
				size += m.size()
			}
		}
	}
	if size > limit {
		for _, m := range ms {
			if !slices.Contains(lost, m.Channel) {
				lost = append(lost, m.Channel)
			}
		}
		return nil, lost
	}
	slices.SortFunc(ms, func(a, b *Message) int { return cmp.Compare(a.Seq, b.Seq) })
	return ms, lost
}

// last returns the last n messages of some channels together, in the order of the log, or fewer if they have more than
// limit bytes. The caller holds h.mu.
func (h *Hub) last(channels []string, n, limit int) (ms []*Message) {
	if n == 0 {
		return nil
	}
	h.trim(time.Now())
	for _, name := range channels {
		if ch := h.channels[name]; ch != nil {
			ms = append(ms, ch.history[max(0, len(ch.history)-n):]...)
		}
	}
	slices.SortFunc(ms, func(a, b *Message) int { return cmp.Compare(a.Seq, b.Seq) })
	first := len(ms)
	for size := 0; first > max(0, len(ms)-n); first-- {
		if size += ms[first-1].size(); size > limit && first < len(ms) {
			break
		}
	}
	return slices.Clone(ms[first:])
}
