package hub

import (
	"errors"
	"unique"
)

// ConflateKey says which messages of a channel replace each other: of those with one key, a client that does not keep up, and
// one that comes later, may be sent only the newest. The zero value is no key: such a message is never skipped.
//
// It is as large as a pointer, so that a message without one is no larger than before, and two are equal if their texts are.
type ConflateKey struct{ text unique.Handle[string] }

// NewConflateKey returns the key for a text, and none for an empty one.
func NewConflateKey(text string) (k ConflateKey) {
	if text != "" {
		k.text = unique.Make(text)
	}
	return k
}

// String returns the text, which is empty if there is none.
func (k ConflateKey) String() string {
	if !k.IsSet() {
		return ""
	}
	return k.text.Value()
}

// IsSet reports whether there is a key.
func (k ConflateKey) IsSet() bool { return k != ConflateKey{} }

// checkConflate returns an error if the conflate key cannot be used.
func (m *Message) checkConflate() error {
	if m.Emit != nil { // not everybody on the channel gets it
		return errors.New("a message for some of a channel's clients cannot have a conflate key")
	}
	return CheckName("the conflate key", m.Conflate.String())
}

// conflated is what messages that replace each other have in common while they wait. What history keeps is not replaced by what it
// does not keep: a client that is cut off in between, and resumes, would get neither.
type conflated struct {
	channel   string
	key       ConflateKey
	transient bool
}

func (m *Message) conflated() conflated { return conflated{m.Channel, m.Conflate, m.Transient} }

// conflatedCost is about what the newest message of a conflate key takes where it is looked up: its entry in a map, and its
// place in a list.
const conflatedCost = 96

// conflateCost is conflatedCost for a message that has a conflate key.
func (m *Message) conflateCost() int {
	if !m.Conflate.IsSet() {
		return 0
	}
	return conflatedCost + len(m.Conflate.String())
}

// supersedeLocked drops the message that a new one replaces from their channel's history. The channel loses nothing by that:
// whoever resumes from a position before the old message gets the new one. So the history of such a channel is its current
// state, and there is nothing to skip when it is read.
func (h *Hub) supersedeLocked(s *stored) {
	ch, key := s.channel, s.message.Conflate
	if old := ch.conflated[key]; old != nil {
		h.removeLocked(old)
	}
	ch.noteConflatedLocked(s)
}

// noteConflatedLocked makes a stored message the newest of its conflate key.
func (ch *channel) noteConflatedLocked(s *stored) {
	if ch.conflated == nil {
		ch.conflated = make(map[ConflateKey]*stored)
	}
	ch.conflated[s.message.Conflate] = s
}

// forgetConflatedLocked is for a stored message that is about to be dropped.
func (ch *channel) forgetConflatedLocked(s *stored) {
	if ch.conflated[s.message.Conflate] == s {
		// Replaced when it is empty, because a map keeps its space (golang/go#20135).
		if delete(ch.conflated, s.message.Conflate); len(ch.conflated) == 0 {
			ch.conflated = nil
		}
	}
}

// kindConflate is set in broker.Entry.Kind where Data begins with a conflate key: a byte for its length, and the key. As with
// kindEmit, all nodes are brought up to date before the first such message is published.
const kindConflate = 0x20

// appendConflate appends the conflate key, and the data.
func (m *Message) appendConflate(dst []byte) []byte {
	key := m.Conflate.String()
	return append(append(append(dst, byte(len(key))), key...), m.Data...)
}

// parseConflate is the inverse of appendConflate. The data that it sets refers to p.
func (m *Message) parseConflate(p []byte) bool {
	if len(p) == 0 || p[0] == 0 || int(p[0]) > len(p)-1 {
		return false
	}
	n := 1 + int(p[0])
	m.Conflate, m.Data = NewConflateKey(string(p[1:n])), p[n:]
	return true
}
