package packet

import (
	"bytes"

	"github.com/caddy-broadcast/caddy-broadcast/internal/frame"
)

// Assembly is a packet whose attachments are still coming. A session has one at a time. Until it is complete, a message of text
// closes the client with Missing. A binary message at any other time closes it with Unexpected.
type Assembly struct {
	Packet      Packet
	Attachments [][]byte

	room int // how many more bytes it may have
}

// ErrTooLarge closes a client whose attachments exceed what it may send. Nobody could tell before they came.
var ErrTooLarge = &frame.CloseError{Code: frame.MessageTooBig, Text: "the attachments are too large"}

// NewAssembly begins with a packet that has attachments. Limit is how many bytes they and its text may have together. It
// copies what the packet has of what was parsed.
func NewAssembly(p Packet, limit int) (*Assembly, *frame.CloseError) {
	if len(p.Payload) > limit {
		return nil, ErrTooLarge
	}
	p.Payload, p.ID = bytes.Clone(p.Payload), bytes.Clone(p.ID)
	p.list.p = p.Payload
	return &Assembly{Packet: p, room: limit - len(p.Payload)}, nil
}

// Add adds the next attachment, which it keeps, and reports whether it was the last.
func (a *Assembly) Add(data []byte) (complete bool, err *frame.CloseError) {
	if len(a.Attachments) >= a.Packet.Attachments {
		return false, Unexpected
	}
	if a.room -= len(data); a.room < 0 {
		return false, ErrTooLarge
	}
	a.Attachments = append(a.Attachments, data)
	return len(a.Attachments) == a.Packet.Attachments, nil
}

// The errors that close a client which sends binary packets and text in an order that makes no sense.
var (
	Unexpected = invalid("unexpected attachment")
	Missing    = invalid("attachments are missing")
)
