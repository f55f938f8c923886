// Package wire turns messages into what is written on a connection.
package wire

import (
	"encoding/binary"
	"unicode/utf8"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// First bytes of a WebSocket frame (RFC 6455, section 5.2), with FIN set.
const (
	text       = 0x81
	binaryData = 0x82
	closing    = 0x88
	ping       = 0x89
	pong       = 0x8a
	rsv1       = 0x40 // the payload is deflated (RFC 7692, section 6)
)

// maxControl is the longest payload of a control frame (RFC 6455, section 5.5).
const maxControl = 125

// Raw is the format of a WebSocket without a protocol of ours: a message is a frame, and nothing is added.
type Raw struct {
	// MinDeflate is the size in bytes from which a message is deflated, for a connection that has negotiated
	// permessage-deflate; 0 is never.
	MinDeflate int
}

var pingFrame = []byte{ping, 0}

// Append appends a frame a message.
func (f Raw) Append(dst []byte, run []*hub.Message) []byte {
	for _, m := range run {
		first, data := byte(text), m.Data
		if m.Kind == hub.Binary {
			first = binaryData
		}
		if f.MinDeflate > 0 && len(data) >= f.MinDeflate {
			if p := m.Encoded(deflated{}, deflateData); len(p) < len(data) {
				first, data = first|rsv1, p
			}
		}
		dst = append(appendHeader(dst, first, len(data)), data...)
	}
	return dst
}

// Ping returns an empty ping frame.
func (Raw) Ping() []byte { return pingFrame }

// Close returns a close frame.
func (Raw) Close(why hub.Reason, text string) []byte { return CloseFrame(Code(why), text) }

// CloseFrame returns a close frame. The code 1005 stands for none (RFC 6455, section 7.4.1).
func CloseFrame(code uint16, reason string) []byte {
	if code == 1005 {
		return []byte{closing, 0}
	}
	n := min(len(reason), maxControl-2)
	for n < len(reason) && n > 0 && !utf8.RuneStart(reason[n]) { // it is UTF-8 too
		n--
	}
	p := append(make([]byte, 0, 4+n), closing, byte(2+n))
	return append(binary.BigEndian.AppendUint16(p, code), reason[:n]...)
}

// Gap returns nil: only what was published is sent.
func (Raw) Gap([]string) []byte { return nil }

// TextFrame returns a text frame.
func TextFrame(s string) []byte {
	return append(appendHeader(make([]byte, 0, 10+len(s)), text, len(s)), s...)
}

// Pong returns the answer to a ping with the payload.
func Pong(payload []byte) []byte {
	return append(appendHeader(make([]byte, 0, 2+len(payload)), pong, len(payload)), payload...)
}

func appendHeader(dst []byte, first byte, n int) []byte {
	switch {
	case n < 126:
		return append(dst, first, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(dst, first, 126), uint16(n))
	default:
		return binary.BigEndian.AppendUint64(append(dst, first, 127), uint64(n))
	}
}
