package hub

import (
	"encoding/binary"
	"slices"
	"time"
)

// Save appends what the hub knows of its own log to dst, for Restore: the epoch, the last position, what is kept, and
// idempotency keys. The hub is closed, so nothing changes any more. It returns dst as it is if the hub shares a log, which
// knows all of that better.
//
// All numbers are uvarints, and all strings have their length before them:
//
//	epoch, last position, its time, the last position that a channel without history has lost, the secret of keys
//	channels: how many; for each its name, and the last position that it has lost
//	names: the same, for what is kept for names
//	messages: how many; for each which of these has it, the position, the time, the kind, the event, and the data
//	keys: how many; for each the ID, position, digest, time, subscribers, and owner
func (h *Hub) Save(dst []byte) []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.log != nil || h.starting.Load() != nil { // not restored yet, so there is nothing to save
		return dst
	}
	s := saver{hub: h, places: make(map[*channel]uint64), out: slices.Grow(dst, h.savedSizeLocked())}
	s.text(h.epoch)
	s.number(h.seq)
	s.time(h.seqTime)
	s.number(h.lostLocked())
	s.out = append(s.out, h.repeats.secret[:]...)
	s.channels()
	s.names()
	s.number(uint64(h.history.count))
	var last *channel
	var place uint64
	for m := h.history.oldest; m != nil; m = m.in[inAll].after {
		if m.channel != last { // mostly neighbors are of one
			last, place = m.channel, s.places[m.channel]
		}
		s.message(place, m.message)
	}
	s.keys()
	return s.out
}

// savedSizeLocked returns about how many bytes Save appends: of a message its data and event, and a few numbers.
func (h *Hub) savedSizeLocked() int {
	const numbers = 32
	return int(h.history.bytes.Load()) - h.history.count*(messageOverhead-numbers) + len(h.repeats.known)*numbers*2 + 1<<10
}

// lostLocked returns the last position that a channel without history has lost.
func (h *Hub) lostLocked() uint64 {
	lost := h.droppedSeq
	for _, ch := range h.channels { // whose clients were too slow to say goodbye
		if ch.history.count == 0 {
			lost = max(lost, ch.droppedSeq)
		}
	}
	return lost
}

// saver appends the parts of what Save makes.
type saver struct {
	hub    *Hub
	out    []byte
	places map[*channel]uint64 // in the lists of channels and names
}

func (s *saver) number(n uint64)  { s.out = binary.AppendUvarint(s.out, n) }
func (s *saver) text(t string)    { s.out = append(binary.AppendUvarint(s.out, uint64(len(t))), t...) }
func (s *saver) data(p []byte)    { s.out = append(binary.AppendUvarint(s.out, uint64(len(p))), p...) }
func (s *saver) fixed(n uint64)   { s.out = binary.BigEndian.AppendUint64(s.out, n) }
func (s *saver) time(t time.Time) { s.fixed(uint64(t.UnixNano())) }

// place appends a channel, or what is kept for a name.
func (s *saver) place(name string, ch *channel) {
	s.places[ch] = uint64(len(s.places))
	s.text(name)
	s.number(ch.droppedSeq)
}

func (s *saver) channels() {
	n := uint64(0)
	for _, ch := range s.hub.channels {
		if ch.history.count > 0 {
			n++
		}
	}
	s.number(n)
	for name, ch := range s.hub.channels {
		if ch.history.count > 0 {
			s.place(name, ch)
		}
	}
}

func (s *saver) names() {
	var names []string
	for name, n := range s.hub.names {
		if n.kept != nil {
			s.hub.renewLocked(n)
			names = append(names, name)
		}
	}
	s.number(uint64(len(names)))
	for _, name := range names {
		s.place(name, s.hub.names[name].kept)
	}
}

func (s *saver) message(place uint64, m *Message) {
	s.number(place)
	s.number(m.Seq)
	s.time(m.Time)
	kind, data := uint64(m.Kind), m.Data
	if m.Emit != nil {
		kind, data = kind|kindEmit, m.appendEmit(nil, true)
	}
	if m.Conflate.IsSet() {
		kind, data = kind|kindConflate, m.appendConflate(nil)
	}
	s.number(kind)
	s.text(m.Event)
	s.data(data)
}

// keys appends the keys, the oldest first.
func (s *saver) keys() {
	r := &s.hub.repeats
	s.number(uint64(len(r.known)))
	for i := r.byAge.first; i != 0; i = r.keys.at(i).in[inAge].after {
		k := r.keys.at(i)
		s.out = append(s.out, k.id[:]...)
		s.number(k.seq)
		s.fixed(k.digest)
		s.time(r.start.Add(k.at))
		s.number(uint64(k.subscribers))
		s.fixed(r.owned.at(k.owner).id)
	}
}
