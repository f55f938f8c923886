package websocket

import (
	"encoding/binary"
	"unicode/utf8"
)

// Opcodes (RFC 6455, section 5.2).
const (
	opContinuation = 0
	opText         = 1
	opBinary       = 2
	opClose        = 8
	opPing         = 9
	opPong         = 10
)

// maxControl is the longest payload of a control frame (RFC 6455, section 5.5).
const maxControl = 125

// Close codes (RFC 6455, section 7.4.1).
const (
	codeProtocolError = 1002
	codeUnsupported   = 1003
	codeNone          = 1005 // never sent: a close frame without a code
	codeInvalidData   = 1007
	codePolicy        = 1008
	codeTooBig        = 1009
)

// frames takes a client's frames apart as their bytes come, and holds no buffer between messages. gorilla's reader
// would hold a goroutine for each client, which is most of what a quiet one costs.
type frames struct {
	max      int  // bytes of a message, inflated
	deflates bool // permessage-deflate was negotiated
	skip     bool // look for the close frame alone

	have    uint8 // bytes of header
	inFrame bool  // the header is whole, the payload is not
	header  [14]byte
	final   bool
	opcode  uint8
	turn    uint8 // of the mask
	left    uint64

	kind     uint8  // of the message that has begun: opText, opBinary, or 0
	deflated bool   // it is
	message  []byte // of it, as far as it is there
	runes    partialRune
	control  []byte // the payload of a control frame, as far as it is there
}

// fault is why a client is closed. After a protocol error nothing more can be read; else feed may be called again
// with skip set.
type fault struct {
	code uint16
	text string
}

// receiver is told what the frames say.
type receiver interface {
	// message is given the data for itself, or else only lent it. Text is UTF-8, unless it is deflated.
	message(kind uint8, deflated bool, data []byte, own bool) *fault
	// chatter is a frame that is no part of what the client says: a ping, a pong, or an empty part (opContinuation).
	chatter(opcode uint8, payload []byte)
	closed(code uint16)
}

// feed takes the next bytes, and changes them. It returns when they are used up, behind a close frame, and at a fault,
// with what it has not taken.
func (f *frames) feed(p []byte, to receiver) (rest []byte, bad *fault) {
	for {
		if !f.inFrame {
			n, bad := f.readHeader(p)
			p = p[n:]
			if bad != nil || !f.inFrame {
				return p, bad
			}
		}
		n := int(min(f.left, uint64(len(p))))
		if n == 0 && f.left > 0 {
			return nil, nil
		}
		part := p[:n]
		p = p[n:]
		f.left -= uint64(n)
		f.inFrame = f.left > 0
		f.unmask(part)
		if f.opcode < opClose {
			if bad := f.data(part, to); bad != nil {
				return p, bad
			}
		} else if end, bad := f.controlFrame(part, to); end || bad != nil {
			return p, bad
		}
	}
}

// readHeader takes what there is of a header.
func (f *frames) readHeader(p []byte) (n int, bad *fault) {
	for n < len(p) {
		f.header[f.have] = p[n]
		f.have++
		n++
		if f.have == 2 {
			if bad := f.check(); bad != nil {
				return n, bad
			}
		}
		if f.have >= 2 && f.have == f.headerSize() {
			return n, f.begin()
		}
	}
	return n, nil
}

func (f *frames) headerSize() uint8 {
	switch f.header[1] & 0x7f {
	case 126:
		return 2 + 2 + 4
	case 127:
		return 2 + 8 + 4
	}
	return 2 + 4
}

// check checks the first two bytes of a header.
func (f *frames) check() *fault {
	first, second := f.header[0], f.header[1]
	f.final, f.opcode = first&0x80 != 0, first&0x0f
	switch {
	case first&0x30 != 0:
		return &fault{codeProtocolError, "a reserved bit is set"}
	case first&0x40 != 0 && (!f.deflates || f.opcode != opText && f.opcode != opBinary): // RFC 7692, section 6
		return &fault{codeProtocolError, "RSV1 is set"}
	case second&0x80 == 0:
		return &fault{codeProtocolError, "a frame is not masked"}
	}
	switch f.opcode {
	case opText, opBinary:
		if f.kind != 0 {
			return &fault{codeProtocolError, "a message begins in another"}
		}
		f.kind, f.deflated = f.opcode, first&0x40 != 0
	case opContinuation:
		if f.kind == 0 {
			return &fault{codeProtocolError, "there is nothing to continue"}
		}
	case opClose, opPing, opPong:
		if !f.final || second&0x7f > maxControl {
			return &fault{codeProtocolError, "a control frame is long or in parts"}
		}
	default:
		return &fault{codeProtocolError, "unknown opcode"}
	}
	return nil
}

// begin begins the payload of a frame.
func (f *frames) begin() *fault {
	switch f.left = uint64(f.header[1] & 0x7f); f.left {
	case 126:
		if f.left = uint64(binary.BigEndian.Uint16(f.header[2:])); f.left < 126 {
			return &fault{codeProtocolError, "a length takes too many bytes"}
		}
	case 127:
		if f.left = binary.BigEndian.Uint64(f.header[2:]); f.left < 1<<16 || f.left > 1<<63-1 {
			return &fault{codeProtocolError, "a length takes too many bytes, or is over 2^63"}
		}
	}
	copy(f.header[:4], f.header[f.have-4:f.have]) // the mask
	f.have, f.turn, f.inFrame = 0, 0, true
	if f.opcode < opClose && !f.skip {
		limit := uint64(f.max)
		if f.deflated {
			limit += limit/1000 + 64 // what deflate may add
		}
		if f.left > limit || uint64(len(f.message))+f.left > limit {
			return &fault{codeTooBig, "message too big"}
		}
	}
	return nil
}

// unmask takes the mask off (RFC 6455, section 5.3).
func (f *frames) unmask(p []byte) {
	mask := [8]byte{}
	for i := range mask {
		mask[i] = f.header[(int(f.turn)+i)&3]
	}
	f.turn = uint8((int(f.turn) + len(p)) & 3)
	m := binary.LittleEndian.Uint64(mask[:])
	for len(p) >= 8 {
		binary.LittleEndian.PutUint64(p, binary.LittleEndian.Uint64(p)^m)
		p = p[8:]
	}
	for i := range p {
		p[i] ^= mask[i]
	}
}

// data takes a part of a message.
func (f *frames) data(part []byte, to receiver) (bad *fault) {
	end := f.final && !f.inFrame
	if f.skip {
		if end {
			f.kind = 0
		}
		return nil
	}
	if len(part) == 0 && !end {
		to.chatter(opContinuation, nil)
		return nil
	}
	if f.kind == opText && !f.deflated && !f.runes.valid(part, end) {
		if end {
			f.kind = 0
		}
		return &fault{codeInvalidData, "not UTF-8"}
	}
	if end && f.message == nil { // all of it is here, mostly
		bad = to.message(f.kind, f.deflated, part, false)
		f.kind = 0
		return bad
	}
	if f.message == nil && f.final {
		// It grows with what comes: who announces much and sends nothing gets nothing.
		f.message = make([]byte, 0, min(uint64(len(part))+f.left, uint64(max(1024, 2*len(part)))))
	}
	f.message = append(f.message, part...)
	if end {
		data := f.message
		f.message = nil
		bad = to.message(f.kind, f.deflated, data, true)
		f.kind = 0
	}
	return bad
}

// controlFrame takes a part of a control frame. After a close frame there is nothing more to read.
func (f *frames) controlFrame(part []byte, to receiver) (end bool, bad *fault) {
	payload := part
	if f.inFrame || f.control != nil {
		f.control = append(f.control, part...)
		if f.inFrame {
			return false, nil
		}
		payload, f.control = f.control, nil
	}
	switch f.opcode {
	case opPing, opPong:
		if !f.skip {
			to.chatter(f.opcode, payload)
		}
	case opClose:
		code := uint16(codeNone)
		if len(payload) > 0 {
			if len(payload) == 1 {
				return true, &fault{codeProtocolError, "half a close code"}
			}
			code = binary.BigEndian.Uint16(payload)
			if !validCode(code) {
				return true, &fault{codeProtocolError, "a close code that must not be sent"}
			}
			if !utf8.Valid(payload[2:]) {
				return true, &fault{codeProtocolError, "a close reason that is not UTF-8"}
			}
		}
		to.closed(code)
		return true, nil
	}
	return false, nil
}

// validCode says whether a client may send a close code (RFC 6455, section 7.4, and IANA's registry).
func validCode(code uint16) bool {
	return code >= 1000 && code <= 1014 && code != 1004 && code != codeNone && code != 1006 || code >= 3000 && code <= 4999
}
