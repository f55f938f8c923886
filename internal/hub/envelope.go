package hub

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// entriesOf returns what messages are in a shared log.
func entriesOf(ms []*Message, node uint64) []broker.Entry {
	es := make([]broker.Entry, len(ms))
	for i, m := range ms {
		e := &es[i]
		*e = broker.Entry{Channel: m.Channel, Event: m.Event, Kind: uint8(m.Kind), Data: m.Data, Node: node}
		if m.Transient {
			e.Kind |= kindTransient
		}
		if m.Emit != nil {
			if m.Emit.id == 0 {
				m.Emit.id = randomID()
			}
			e.Kind, e.Data = e.Kind|kindEmit, m.appendEmit(nil, true)
			if m.private() {
				e.Channel = toChannel
			}
		}
		if m.Conflate.IsSet() {
			e.Kind, e.Data = e.Kind|kindConflate, m.appendConflate(nil)
		}
		if m.Key != "" {
			// Only with a key: most messages have none, and the digest reads all of the data.
			e.Key, e.Digest = m.sharedKey(), m.sharedDigest()
		}
		if m.NoEcho && m.From != nil {
			// Its number, which means something together with Node alone: see ingestLocked.
			e.Conn = uint64(m.From.id)
		}
	}
	return es
}

// sharedKey stands for the publisher, the channel and the key, as keyID does in one hub. It is the same on all nodes, so it
// has no secret: what makes it hard to find two that are equal is SHA-256.
func (m *Message) sharedKey() (key [16]byte) {
	b := make([]byte, 0, 512)
	for _, s := range [...]string{m.Publisher, m.Channel, m.Key} {
		// Each with its length before it, so that no other three strings make the same bytes.
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
	}
	sum := sha256.Sum256(b)
	copy(key[:], sum[:])
	return key
}

// sharedDigest tells what two messages with one key say apart, on all nodes.
func (m *Message) sharedDigest() uint64 {
	// SHA-256 and not maphash: a maphash.Seed is good in one process only.
	d := sha256.New()
	m.writeSaid(d)
	return binary.BigEndian.Uint64(d.Sum(nil))
}

// writeSaid writes what a message says: what two messages with one key have to have in common.
func (m *Message) writeSaid(d hash.Hash) {
	d.Write([]byte{byte(m.Kind)})
	d.Write([]byte(m.Event))
	d.Write([]byte{0}) // which no event's name has
	switch {
	case m.Emit != nil:
		d.Write(m.appendEmit(nil, false))
	case m.Conflate.IsSet():
		d.Write(m.appendConflate(nil))
	default:
		d.Write(m.Data)
	}
}
