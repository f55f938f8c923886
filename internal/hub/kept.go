package hub

import "runtime"

// KeptMessages returns the messages of a channel that are kept after a position, the oldest first: at most limit of them, and
// at most size bytes, but one at least. more reports whether there are others after them. If after is empty it begins with the
// oldest, or with last so that it ends with the newest. ok is false if after is no position of this epoch. With a shared log it
// is what this hub has of it.
func (h *Hub) KeptMessages(name, after string, last bool, limit, size int) (ms []*Message, more, ok bool) {
	next := uint64(0)
	// In pieces, and with their positions: messages may be dropped and others may come between two of them.
	for first := true; ; first = false {
		h.mu.Lock()
		if first && after != "" {
			epoch, seq, good := parseID(after)
			if !good || epoch != h.epoch {
				h.mu.Unlock()
				return nil, false, false
			}
			next = seq + 1
		}
		var some []*stored
		if ch := h.channels[name]; ch != nil {
			from, _ := ch.find(next)
			if first && last {
				from = max(from, len(ch.history)-limit)
			}
			some = ch.history[from:]
		}
		left := len(some)
		for _, s := range some[:min(left, atOnce)] {
			m := s.message
			if len(ms) == limit || len(ms) > 0 && size < len(m.Data) {
				h.mu.Unlock()
				return ms, true, true
			}
			size -= len(m.Data)
			ms, next = append(ms, m), m.Seq+1
		}
		h.mu.Unlock()
		if left <= atOnce {
			return ms, false, true
		}
		runtime.Gosched() // see inPieces
	}
}
