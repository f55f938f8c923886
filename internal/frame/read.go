// Package frame is the WebSocket protocol's data framing in both directions (RFC 6455, sections 5 and 7) with
// permessage-deflate (RFC 7692), for a server. It is about bytes alone and does no input or output.
package frame

import (
	"encoding/binary"
	"unicode/utf8"
)

// Reader takes a client's frames apart as their bytes come, and holds no buffer between messages. A reader that asks for
// bytes, as gorilla's does, would need a goroutine for each client, which is most of what an idle connection costs.
type Reader struct {
	max int // bytes of a message, inflated

	// The flags and small fields are together, so that there is no padding: there is one Reader for each connection.
	state    state
	deflates bool  // permessage-deflate was negotiated
	have     uint8 // bytes of header
	inFrame  bool  // the header is complete, the payload is not
	header   [14]byte
	final    bool
	opcode   Opcode
	maskPos  uint8
	kind     Opcode // of the message that has begun: Text, Binary, or 0
	deflated bool   // the message that has begun is
	runes    partialRune

	left    uint64 // bytes of payload
	message []byte // what has come of the message, if it is in several pieces
	control []byte // what has come of a control frame, if it is in several pieces
}

// state is what the next bytes of the client mean. It only ever grows.
type state uint8

const (
	open       state = iota // messages are read
	discarding              // the server has closed: only the client's close frame still counts
	failed                  // the client broke the protocol: nothing it sends can be understood any more
	closed                  // the client's close frame was read: nothing may follow it
)

// Receiver gets what a Reader reads.
type Receiver interface {
	// Message takes a message.
	Message(Message) *CloseError

	// Control takes a frame without data: a ping, a pong, or an empty frame of a message, whose opcode is Continuation.
	Control(op Opcode, payload []byte) *CloseError

	// Closed takes the code of a close frame.
	Closed(Code)
}

// NewReader returns the reader of a client whose messages have at most max bytes, inflated, and may be deflated.
func NewReader(max int, deflates bool) Reader { return Reader{max: max, deflates: deflates} }

// Discard has the reader look for the close frame alone.
func (r *Reader) Discard() {
	r.state, r.message = max(r.state, discarding), nil
}

// Closed reports whether the client's close frame was read.
func (r *Reader) Closed() bool { return r.state == closed }

// CloseReadable reports whether a close frame of the client would still be seen: not after it broke the protocol, and not
// if it stopped in the middle of a frame.
func (r *Reader) CloseReadable() bool { return r.state < failed && !r.inFrame }

// Unfinished returns how many bytes there are of a message that is not finished, and how much space they take.
func (r *Reader) Unfinished() (n, space int) { return len(r.message), cap(r.message) }

// Feed takes the next bytes, and changes them. It returns when they are used up, and at an error with what it has not
// taken. After an error it discards, but Feed may be called again. After a protocol error or a close frame it ignores all
// bytes: the caller reads on all the same, or the kernel would reset the connection before the client has read why.
func (r *Reader) Feed(p []byte, to Receiver) (rest []byte, err *CloseError) {
	for r.state < failed {
		if !r.inFrame {
			var n int
			n, err = r.readHeader(p)
			p = p[n:]
			if err == nil && !r.inFrame {
				return nil, nil
			}
		}
		if err == nil {
			n := int(min(r.left, uint64(len(p))))
			if n == 0 && r.left > 0 {
				return nil, nil
			}
			err = r.payload(p[:n], to)
			p = p[n:]
		}
		if err != nil {
			r.Discard()
			if err.Code == ProtocolError {
				r.state = failed
			}
			return p, err
		}
	}
	return nil, nil
}

// readHeader takes what there is of a header, which may come byte by byte. The first two bytes are checked as soon as they
// are there: a client that breaks the protocol is closed without waiting for more.
func (r *Reader) readHeader(p []byte) (n int, err *CloseError) {
	for n < len(p) {
		r.header[r.have] = p[n]
		r.have++
		n++
		if r.have == 2 {
			if err := r.parseStart(); err != nil {
				return n, err
			}
		}
		if r.have >= 2 && r.have == r.headerSize() {
			return n, r.begin()
		}
	}
	return n, nil
}

// headerSize returns the length of the header that has begun: two bytes, a longer length if these announce it, and the mask.
func (r *Reader) headerSize() uint8 {
	switch r.header[1] & 0x7f {
	case 126:
		return 2 + 2 + 4
	case 127:
		return 2 + 8 + 4
	}
	return 2 + 4
}

var (
	errTooBig  = &CloseError{MessageTooBig, "message too big"}
	errNotUTF8 = &CloseError{InvalidData, "invalid UTF-8"}
)

// violation returns the error for a client that breaks the protocol.
func violation(text string) *CloseError { return &CloseError{ProtocolError, text} }

// parseStart parses and checks the first two bytes of a header.
func (r *Reader) parseStart() *CloseError {
	first, second := r.header[0], r.header[1]
	r.final, r.opcode = first&fin != 0, Opcode(first&0x0f)
	switch {
	case first&0x30 != 0:
		return violation("a reserved bit is set")
	case first&rsv1 != 0 && (!r.deflates || r.opcode != Text && r.opcode != Binary): // RFC 7692, section 6
		return violation("RSV1 is set")
	case second&0x80 == 0:
		return violation("a frame is not masked")
	}
	switch r.opcode {
	case Text, Binary:
		if r.kind != 0 {
			return violation("a new message starts before the last one ended")
		}
		r.kind, r.deflated = r.opcode, first&rsv1 != 0
	case Continuation:
		if r.kind == 0 {
			return violation("there is no message to continue")
		}
	case Close, Ping, Pong:
		if !r.final || second&0x7f > maxControl {
			return violation("a control frame is too long or fragmented")
		}
	default:
		return violation("unknown opcode")
	}
	return nil
}

// begin begins the payload of a frame. A message that is too big is known here, before any of the frame has come. Lengths
// must be in the shortest form (RFC 6455, section 5.2).
func (r *Reader) begin() *CloseError {
	switch r.left = uint64(r.header[1] & 0x7f); r.left {
	case 126:
		if r.left = uint64(binary.BigEndian.Uint16(r.header[2:])); r.left < 126 {
			return violation("a length takes too many bytes")
		}
	case 127:
		if r.left = binary.BigEndian.Uint64(r.header[2:]); r.left < 1<<16 || r.left > 1<<63-1 {
			return violation("a length takes too many bytes, or is over 2^63")
		}
	}
	copy(r.header[:4], r.header[r.have-4:r.have]) // the mask is all that is needed of the header
	r.have, r.maskPos, r.inFrame = 0, 0, true
	if !r.opcode.isControl() && r.state == open {
		limit := uint64(r.max)
		if r.deflated {
			// Data that does not compress grows: deflate stores it with 5 bytes for each block of 65,535 (RFC 1951, section
			// 3.2.4). Encoders use smaller blocks too, so 1/1000 is allowed, and 64 bytes for what is short.
			limit += limit/1000 + 64
		}
		if r.left > limit || uint64(len(r.message))+r.left > limit {
			return errTooBig
		}
	}
	return nil
}

// payload takes a part of a frame's payload, which is unmasked in place: the bytes that are read are not copied unless a
// message has to wait for its end.
func (r *Reader) payload(part []byte, to Receiver) *CloseError {
	r.left -= uint64(len(part))
	r.inFrame = r.left > 0
	r.unmask(part)
	if r.opcode.isControl() {
		return r.controlFrame(part, to)
	}
	return r.data(part, to)
}

// unmask takes the mask off (RFC 6455, section 5.3), eight bytes at a time.
func (r *Reader) unmask(p []byte) {
	mask := [8]byte{}
	for i := range mask {
		mask[i] = r.header[(int(r.maskPos)+i)&3]
	}
	r.maskPos = uint8((int(r.maskPos) + len(p)) & 3)
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
func (r *Reader) data(part []byte, to Receiver) (err *CloseError) {
	kind, end := r.kind, r.final && !r.inFrame
	if end {
		r.kind = 0
	}
	if r.state == discarding {
		return nil
	}
	if len(part) == 0 && !end { // it has no data, and a client could send millions of them
		return to.Control(Continuation, nil)
	}
	// Invalid text fails at its first wrong byte (RFC 6455, section 8.1). What is deflated is checked when it is inflated.
	if kind == Text && !r.deflated && !r.runes.valid(part, end) {
		return errNotUTF8
	}
	if end && r.message == nil { // most messages come in one piece, and need no buffer
		return to.Message(Message{kind, part, r.deflated, false, r.max})
	}
	r.reserve(len(part))
	r.message = append(r.message, part...)
	if end {
		whole := r.message
		r.message = nil
		return to.Message(Message{kind, whole, r.deflated, true, r.max})
	}
	return nil
}

// reserve makes space for n more bytes of the message. The space grows with the bytes that have come and not with the
// length that was announced: a client that announces much and sends nothing takes no memory. It doubles, so that a
// message in small pieces is not copied for each of them.
func (r *Reader) reserve(n int) {
	if n += len(r.message); n <= cap(r.message) {
		return
	}
	space := uint64(2 * n)
	if r.final { // what follows is known
		space = min(max(1024, space), uint64(n)+r.left)
	}
	r.message = append(make([]byte, 0, space), r.message...)
}

// controlFrame takes a part of a control frame. Its payload is given on whole, and mostly comes so.
func (r *Reader) controlFrame(part []byte, to Receiver) *CloseError {
	payload := part
	if r.inFrame || r.control != nil {
		r.control = append(r.control, part...)
		if r.inFrame {
			return nil
		}
		payload, r.control = r.control, nil
	}
	if r.opcode == Close {
		code, err := parseClose(payload)
		if err == nil {
			r.state = closed
			to.Closed(code)
		}
		return err
	}
	if r.state == discarding {
		return nil
	}
	return to.Control(r.opcode, payload)
}

// parseClose parses the payload of a close frame (RFC 6455, section 5.5.1).
func parseClose(payload []byte) (Code, *CloseError) {
	switch len(payload) {
	case 0:
		return NoStatus, nil
	case 1:
		return 0, violation("half a close code")
	}
	// The code is checked because it is sent back: we must not send one that is reserved either.
	code := Code(binary.BigEndian.Uint16(payload))
	if !code.validFromClient() {
		return 0, violation("a close code that must not be sent")
	}
	if !utf8.Valid(payload[2:]) {
		return 0, violation("a close reason that is not UTF-8")
	}
	return code, nil
}
