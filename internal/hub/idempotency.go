package hub

import "time"

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

type repeatKey struct{ channel, key string }

type repeat struct {
	seq         uint64
	subscribers int
	time        time.Time
}

// first says whether the message is the first with its key. If not, it is given the first one's place.
func (r *repeats) first(m *Message, now time.Time) bool {
	for len(r.order) > 0 && (now.Sub(r.known[r.order[0]].time) >= repeatTime || len(r.order) >= maxKeys) {
		delete(r.known, r.order[0])
		r.order = r.order[1:]
	}
	before, ok := r.known[repeatKey{m.Channel, m.Key}]
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
	k := repeatKey{m.Channel, m.Key}
	r.known[k] = repeat{m.Seq, m.Subscribers, m.Time}
	r.order = append(r.order, k)
}
