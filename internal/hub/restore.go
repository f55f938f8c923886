package hub

import (
	"bytes"
	"encoding/binary"
	"errors"
	"sync/atomic"
	"time"
)

var errSaved = errors.New("it is not what a hub has saved")

// starting is what has to be done before the hub's first message or connection.
type starting struct {
	do   func()
	done chan struct{}
	run  atomic.Bool // somebody does it
}

// StartWith has f called before the hub's first message or connection, whichever comes first, or by Start. It is called
// once, and those that come meanwhile wait for it.
func (h *Hub) StartWith(f func()) {
	h.starting.Store(&starting{do: f, done: make(chan struct{})})
}

// Start does what StartWith has asked for, if that is not done yet.
func (h *Hub) Start() {
	s := h.starting.Load()
	if s == nil {
		return
	}
	// Not a sync.Once: those that wait would stop the time of testing/synctest.
	if s.run.CompareAndSwap(false, true) {
		s.do()
		h.starting.Store(nil)
		close(s.done)
	}
	<-s.done
}

// Restore makes the hub go on where the one was that has saved: in the same epoch, at the same position, with what its
// options keep. It has had no messages and no connections. If it returns an error, nothing has changed. It refers to p no
// longer than it runs.
func (h *Hub) Restore(p []byte) error {
	r := reader{rest: p}
	s := r.saved()
	if r.failed || len(r.rest) > 0 {
		return errSaved
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.seq > 0 || h.connected > 0 || h.log != nil || h.closed {
		return errors.New("the hub is in use already")
	}
	h.setEpochLocked(s.epoch)
	now := time.Now()
	h.seq, h.droppedSeq, h.repeats.secret = s.seq, s.dropped, s.secret
	if h.seqTime = s.time; now.Before(h.seqTime) {
		h.seqTime = now // a clock that was set back: messages would have a time that is not yet, for as long as that
	}
	h.restoreMessagesLocked(s, now)
	for i := range s.keys {
		k := &s.keys[i]
		if k.at.After(now) { // a clock that was set back
			k.at = now
		}
		if now.Sub(k.at) < repeatTime {
			h.recordKeyLocked(&Message{Seq: k.seq, Time: k.at, Subscribers: k.subscribers}, k)
		}
	}
	return nil
}

// restoreMessagesLocked keeps what was saved, as far as the options do.
func (h *Hub) restoreMessagesLocked(s *saved, now time.Time) {
	places := make([]*channel, 0, len(s.places))
	for i, p := range s.places {
		if i < s.channels {
			ch := h.openChannelLocked(p.name)
			ch.droppedSeq = p.dropped
			places = append(places, ch)
			continue
		}
		if h.names == nil {
			h.names, h.namesOf = make(map[string]*named), make(map[*Conn][]string)
		}
		kept := &channel{name: toChannel, droppedSeq: p.dropped}
		h.names[p.name] = &named{kept: kept, origin: h.origin, left: h.seq}
		h.held.Add(nameCost)
		places = append(places, kept)
	}
	for i, m := range s.messages {
		ch := places[s.placeOf[i]]
		if m.origin = h.origin; m.Time.After(now) { // a clock that was set back: it would be kept for as much longer
			m.Time = now
		}
		if h.keepsLocked(ch.name, ch) {
			// It may forget another channel that has no more messages, and even this one, if that is full and has lost them all.
			if h.channels[ch.name] == nil && ch.name != toChannel {
				ch = h.openChannelLocked(ch.name)
				places[s.placeOf[i]] = ch
			}
			h.appendHistoryLocked(ch, m)
		} else {
			ch.droppedSeq = m.Seq
		}
	}
	for !h.trimToLocked(h.config.historyBytes(), now) {
	}
	// Each message has set the timer as if it were published now.
	if t := h.history.timer; t != nil {
		t.Stop()
		h.history.timer = nil
		h.setTimerLocked(now)
	}
	for _, ch := range places {
		if h.channels[ch.name] == ch {
			h.forgetChannelLocked(ch) // unless something of it was kept
		}
	}
}

// saved is what Save has made.
type saved struct {
	epoch        string
	seq, dropped uint64
	time         time.Time
	secret       [32]byte
	places       []savedPlace
	channels     int // how many of places are channels; the others are names
	messages     []*Message
	placeOf      []uint64 // of the messages
	keys         []keyed
}

type savedPlace struct {
	name    string
	dropped uint64
}

// reader takes what Save has appended off a slice. The first thing that is not there makes it fail, and all that follows is
// zero.
type reader struct {
	rest   []byte
	failed bool
}

func (r *reader) bytes(n uint64) []byte {
	if n > uint64(len(r.rest)) {
		r.failed, r.rest = true, nil
		return make([]byte, min(n, 32))
	}
	p := r.rest[:n:n]
	r.rest = r.rest[n:]
	return p
}

func (r *reader) number() uint64 {
	n, used := binary.Uvarint(r.rest)
	if used <= 0 {
		r.failed, r.rest = true, nil
		return 0
	}
	r.rest = r.rest[used:]
	return n
}

func (r *reader) text() string    { return string(r.bytes(r.number())) }
func (r *reader) fixed() uint64   { return binary.BigEndian.Uint64(r.bytes(8)) }
func (r *reader) time() time.Time { return time.Unix(0, int64(r.fixed())) }

// count returns how many things follow of which each has a byte at least.
func (r *reader) count() int {
	n := r.number()
	if n > uint64(len(r.rest)) {
		r.failed, r.rest = true, nil
		return 0
	}
	return int(n)
}

func (r *reader) saved() *saved {
	s := &saved{epoch: r.text(), seq: r.number(), time: r.time(), dropped: r.number()}
	copy(s.secret[:], r.bytes(uint64(len(s.secret))))
	seen := make(map[savedPlace]bool)
	for kind := range 2 {
		for range r.count() {
			p := savedPlace{r.text(), r.number()}
			id := savedPlace{p.name, uint64(kind)}
			if seen[id] || p.dropped > s.seq {
				r.failed = true
			}
			seen[id] = true
			s.places = append(s.places, p)
		}
		if kind == 0 {
			s.channels = len(s.places)
		}
	}
	for range r.count() {
		if r.failed {
			break
		}
		s.addMessage(r)
	}
	for range r.count() {
		k := keyed{id: keyID(r.bytes(16)), seq: r.number(), digest: r.fixed(), at: r.time(), subscribers: int(uint32(r.number())), owner: r.fixed()}
		s.keys = append(s.keys, k)
	}
	if _, seq, ok := parseID(FormatID(s.epoch, s.seq)); !ok || s.epoch == "" || seq != s.seq || s.dropped > s.seq {
		r.failed = true
	}
	return s
}

// addMessage reads a message. What a client could not accept cannot have been published, so it makes the reader fail.
func (s *saved) addMessage(r *reader) {
	place, m := r.number(), &Message{Seq: r.number(), Time: r.time()}
	kind := r.number()
	m.Event = r.text()
	data := bytes.Clone(r.bytes(r.number())) // so that one small message does not hold all that was saved
	if r.failed || place >= uint64(len(s.places)) || kind > 0xff || m.Seq > s.seq {
		r.failed = true
		return
	}
	m.Channel, m.Data, m.Kind = s.places[place].name, data, Kind(kind&^kindFlags)
	if place >= uint64(s.channels) {
		m.Channel = toChannel
	}
	bad := kind&kindTransient != 0 || // these are not kept
		kind&kindEmit != 0 && m.parseEmit(data) != nil ||
		kind&kindConflate != 0 && (m.Emit != nil || !m.parseConflate(data))
	if bad || m.Channel == toChannel || m.check() != nil {
		r.failed = true
		return
	}
	s.messages = append(s.messages, m)
	s.placeOf = append(s.placeOf, place)
}
