package hub

import "time"

// maxMarks is how many channels are noted whose number of subscribers has changed. Beyond that it is only noted that any may
// have. With names of 30 bytes they take about 5 MB.
const maxMarks = 1 << 16

// marks are the channels whose number of subscribers has changed since CountsChanged was called. Only other nodes want to
// know it, so there are none without a log. Hub.mu guards them.
type marks struct {
	// By name, because a channel without subscribers or history is not in Hub.channels any more. So each is there once,
	// however often clients come and go.
	names map[string]struct{}
	all   bool
}

// markLocked notes that the number of subscribers of a channel has changed.
func (h *Hub) markLocked(ch *channel) {
	m := h.marks
	switch {
	case m == nil || m.all || ch == h.all:
	case len(m.names) < maxMarks:
		m.names[ch.name] = struct{}{}
	default:
		m.names, m.all = nil, true
	}
}

// WatchCounts has changes of the numbers of subscribers noted, or not any more. At first all count as changed.
func (h *Hub) WatchCounts(on bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.marks = nil
	if on {
		h.marks = &marks{all: true}
	}
}

// CountsChanged returns the channels whose number of subscribers has changed since the last call, or reports that any may
// have.
func (h *Hub) CountsChanged() (names map[string]struct{}, all bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.marks == nil {
		return nil, false
	}
	names, all = h.marks.names, h.marks.all
	if len(names) == 0 && !all {
		return nil, false
	}
	// Another map and not an empty one: a map keeps the room that it has had.
	*h.marks = marks{names: make(map[string]struct{})}
	return names, all
}

// SubscribersOf returns how many connections channels have. It looks at atOnce of them at a time.
func (h *Hub) SubscribersOf(names []string) []int {
	counts := make([]int, len(names))
	i := 0
	h.inPieces(func() bool {
		for end := min(i+atOnce, len(names)); i < end; i++ {
			if ch := h.channels[names[i]]; ch != nil {
				counts[i] = ch.subscribers
			}
		}
		return i == len(names)
	})
	return counts
}

// Summary is what a node tells the others about itself.
type Summary struct {
	Started     time.Time
	Connections int
	Epoch       string // empty while there is a log that the hub has not followed yet
	Seq         uint64
}

// Summary returns it.
func (h *Hub) Summary() Summary {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := Summary{Started: h.started, Connections: h.connections, Epoch: h.epoch, Seq: h.seq}
	// Until then the epoch is one that the hub has made for itself, or that of the log before.
	if h.log != nil && !h.log.complete {
		s.Epoch = ""
	}
	return s
}
