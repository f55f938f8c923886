package hub

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
)

// kindEmit is set in broker.Entry.Kind where Data is an encoded Emit, and the message's data behind it. A node without this
// code knows no such kind, so it delivers nothing, moves its watermark, and goes on: its clients miss the message, and are not
// told. So all nodes are brought up to date before the first Socket.IO client comes.
const kindEmit = 0x80

// kindTransient is set in broker.Entry.Kind of a message that is not kept. The log has it for a while, as all others, and no node
// gives it to a client that comes back. Nodes without this code do not deliver it, as with kindEmit.
const kindTransient = 0x40

// kindFlags are the bits that are not the kind of the data.
const kindFlags = kindEmit | kindTransient | kindConflate

// The fields of an encoded Emit: each is a tag, the length and the bytes, in the order of the tags. tagData ends them.
const (
	tagData    = iota // all that is left
	tagArgs           // a JSON array
	tagAttach         // one attachment
	tagRoom           // one room
	tagExcept         // one exception
	tagTo             // the name
	tagChannel        // the message's channel, if the entry's is toChannel
	tagID             // eight bytes
)

var errEmit = errors.New("it is no encoded emit")

// appendField appends one field.
func appendField[T string | []byte](dst []byte, tag byte, p T) []byte {
	return append(binary.AppendUvarint(append(dst, tag), uint64(len(p))), p...)
}

// appendEmit appends a message's Emit and data. The digest of a key leaves the ID out, which each try has another one of.
func (m *Message) appendEmit(dst []byte, withID bool) []byte {
	e := m.Emit
	if e.Args != nil {
		dst = appendField(dst, tagArgs, e.Args)
	}
	for _, a := range e.Attachments {
		dst = appendField(dst, tagAttach, a)
	}
	for _, name := range e.Rooms {
		dst = appendField(dst, tagRoom, name)
	}
	for _, name := range e.Except {
		dst = appendField(dst, tagExcept, name)
	}
	if e.To != "" {
		dst = appendField(dst, tagTo, e.To)
		dst = appendField(dst, tagChannel, m.Channel)
	}
	if withID && e.id != 0 {
		dst = appendField(dst, tagID, binary.BigEndian.AppendUint64(nil, e.id))
	}
	return append(append(dst, tagData), m.Data...)
}

// parseEmit is the inverse of appendEmit: it sets the message's Emit and Data, and its Channel if it is private. It accepts only
// what appendEmit makes, so a field of a later version is an error and not ignored. What it returns refers to p.
func (m *Message) parseEmit(p []byte) error {
	e := new(Emit)
	own := m.Channel == toChannel
	last := byte(0)
	for {
		if len(p) == 0 {
			return errEmit
		}
		tag := p[0]
		if p = p[1:]; tag == tagData {
			m.Emit, m.Data = e, p
			// In the channel for names there are private messages, and nowhere else.
			if own != (e.To != "") || m.Channel == toChannel {
				return errEmit
			}
			return nil
		}
		n, used := binary.Uvarint(p)
		if used <= 0 || n > uint64(len(p)-used) || used > 1 && p[used-1] == 0 {
			return errEmit
		}
		field := p[used : used+int(n) : used+int(n)]
		p = p[used+int(n):]
		repeats := tag == last && (tag == tagAttach || tag == tagRoom || tag == tagExcept)
		if tag < last || tag == last && !repeats || !m.setField(e, tag, field) {
			return errEmit
		}
		// A name and its channel are there together.
		if last == tagTo && tag != tagChannel || tag == tagChannel && last != tagTo {
			return errEmit
		}
		last = tag
	}
}

// setField sets one field, and reports whether it may be there.
func (m *Message) setField(e *Emit, tag byte, p []byte) bool {
	switch tag {
	case tagArgs:
		e.Args = p
	case tagAttach:
		e.Attachments = append(e.Attachments, p)
		return len(e.Attachments) <= maxAttachments
	case tagRoom:
		e.Rooms = append(e.Rooms, string(p))
		return len(e.Rooms) <= maxRooms
	case tagExcept:
		e.Except = append(e.Except, string(p))
		return len(e.Except) <= maxRooms
	case tagTo:
		e.To = string(p)
		return e.To != ""
	case tagChannel:
		if m.Channel != toChannel {
			return false
		}
		m.Channel = string(p)
		return m.Channel != toChannel
	case tagID:
		if len(p) != 8 {
			return false
		}
		e.id = binary.BigEndian.Uint64(p)
		return e.id != 0
	default:
		return false
	}
	return true
}

// randomID returns the ID of an emit in a shared log. It need not be secret: whoever writes to the log can write anything.
func randomID() uint64 { return rand.Uint64() | 1 }
