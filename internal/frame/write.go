package frame

import (
	"encoding/binary"
	"unicode/utf8"
)

// Bits of a frame's first byte, in addition to the opcode (RFC 6455, section 5.2).
const (
	fin  = 0x80
	rsv1 = 0x40 // the payload is deflated (RFC 7692, section 6)
)

const (
	// maxControl is the length in bytes of the longest payload of a control frame (RFC 6455, section 5.5).
	maxControl = 125

	// MaxHeader is the length in bytes of the longest header that a server sends. It has no mask.
	MaxHeader = 10
)

// PingFrame is a ping without a payload. It is shared and must not be changed.
var PingFrame = []byte{fin | byte(Ping), 0}

// Deflated is added to the opcode of a frame whose payload is deflated.
const Deflated Opcode = rsv1

// AppendHeader appends the header of a frame with n bytes of payload that is a whole message, or a control frame.
func AppendHeader(dst []byte, op Opcode, n int) []byte {
	first := fin | byte(op)
	switch {
	case n < 126:
		return append(dst, first, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(dst, first, 126), uint16(n))
	default:
		return binary.BigEndian.AppendUint64(append(dst, first, 127), uint64(n))
	}
}

// TextFrame returns a text frame. It is for single frames: messages are appended to a batch.
func TextFrame(s string) []byte {
	return append(AppendHeader(make([]byte, 0, MaxHeader+len(s)), Text, len(s)), s...)
}

// PongFrame returns the answer to a ping with the payload.
func PongFrame(payload []byte) []byte {
	return append(AppendHeader(make([]byte, 0, 2+len(payload)), Pong, len(payload)), payload...)
}

// CloseFrame returns a close frame. NoStatus makes one without a code, which answers one without a code. A reason that is too long for a control frame is cut.
func CloseFrame(code Code, reason string) []byte {
	if code == NoStatus {
		return []byte{fin | byte(Close), 0}
	}
	n := min(len(reason), maxControl-2)
	for n < len(reason) && n > 0 && !utf8.RuneStart(reason[n]) { // a part of a character would not be UTF-8
		n--
	}
	p := append(make([]byte, 0, 4+n), fin|byte(Close), byte(2+n))
	return append(binary.BigEndian.AppendUint16(p, uint16(code)), reason[:n]...)
}
