package hub

import (
	"hash/maphash"
	"time"
)

const (
	// repeatTime is how long a message's key is known.
	repeatTime = 2 * time.Minute

	// maxKeys bounds how many keys are known; the oldest are forgotten first.
	maxKeys = 1 << 16
)

// repeats knows the keys of the last messages, so that one who publishes a message again, not knowing whether it
// arrived, does not publish it twice. Hub.mu guards it.
type repeats struct {
	known map[repeatKey]repeat
	order []repeatKey // oldest first
}

type repeatKey struct{ publisher, channel, key string }

type repeat struct {
	seq         uint64
	digest      uint64 // of what was published
	subscribers int
	time        time.Time
}

func keyOf(m *Message) repeatKey { return repeatKey{m.Publisher, m.Channel, m.Key} }

var digestSeed = maphash.MakeSeed()

// digest tells what two messages with one key say apart.
func digest(m *Message) uint64 {
	var d maphash.Hash
	d.SetSeed(digestSeed)
	d.WriteByte(byte(m.Kind))
	d.WriteString(m.Event)
	d.WriteByte(0) // which no event's name has
	d.Write(m.Data)
	return d.Sum64()
}

// differs says whether the message's key is known of one that says something else.
func (r *repeats) differs(m *Message, now time.Time) bool {
	before, ok := r.known[keyOf(m)]
	return ok && now.Sub(before.time) < repeatTime && before.digest != digest(m)
}

// first says whether the message is the first with its key. If not, it is given the first one's place.
func (r *repeats) first(m *Message, now time.Time) bool {
	for len(r.order) > 0 && (now.Sub(r.known[r.order[0]].time) >= repeatTime || len(r.order) >= maxKeys) {
		delete(r.known, r.order[0])
		r.order = r.order[1:]
	}
	before, ok := r.known[keyOf(m)]
	if ok {
		m.Seq, m.Subscribers, m.Time = before.seq, before.subscribers, before.time
	}
	return !ok
}

// remember keeps the key of a message that has been given its place.
func (r *repeats) remember(m *Message) {
	if r.known == nil {
		r.known = make(map[repeatKey]repeat)
	}
	k := keyOf(m)
	r.known[k] = repeat{m.Seq, digest(m), m.Subscribers, m.Time}
	r.order = append(r.order, k)
}
