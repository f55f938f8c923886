package packet

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"iter"
	"unicode/utf8"

	"github.com/caddy-broadcast/caddy-broadcast/internal/frame"
)

// EngineType is the type of an Engine.IO packet.
type EngineType byte

// The types of Engine.IO packets.
const (
	EngineOpen    EngineType = '0'
	EngineClose   EngineType = '1'
	EnginePing    EngineType = '2'
	EnginePong    EngineType = '3'
	EngineMessage EngineType = '4'
	EngineUpgrade EngineType = '5'
	EngineNoop    EngineType = '6'
)

// Probe is the data of the ping and the pong by which a client tries a WebSocket before it upgrades to it.
const Probe = "probe"

const (
	// Separator is between the packets of a payload.
	Separator = '\x1e'

	// binaryPrefix is in a payload before the base64 of a binary packet, whose type is always message.
	binaryPrefix = 'b'
)

// EnginePacket is an Engine.IO packet. Binary packets are of the type EngineMessage.
type EnginePacket struct {
	Type   EngineType
	Binary bool
	Data   []byte
}

// ParseFrame parses the data of a WebSocket message, which it does not copy. Text is UTF-8. Whether the client may send a
// packet of that type now is for the session to decide. Only EngineOpen is never right.
func ParseFrame(op frame.Opcode, data []byte) (EnginePacket, *frame.CloseError) {
	if op == frame.Binary {
		return EnginePacket{EngineMessage, true, data}, nil
	}
	return parseText(data)
}

func parseText(data []byte) (EnginePacket, *frame.CloseError) {
	if len(data) == 0 {
		return EnginePacket{}, invalid("empty packet")
	}
	t := EngineType(data[0])
	if t < EngineClose || t > EngineNoop {
		return EnginePacket{}, invalid("unknown packet type")
	}
	return EnginePacket{Type: t, Data: data[1:]}, nil
}

// Payload returns the packets in the body of a POST. It ends after the first error. Text is not copied, and binary packets
// belong to the caller: together they are smaller than the body.
func Payload(body []byte) iter.Seq2[EnginePacket, *frame.CloseError] {
	return func(yield func(EnginePacket, *frame.CloseError) bool) {
		if !utf8.Valid(body) {
			yield(EnginePacket{}, &frame.CloseError{Code: frame.InvalidData, Text: "the payload is not UTF-8"})
			return
		}
		for more := true; more; {
			var p []byte
			p, body, more = bytes.Cut(body, []byte{Separator})
			packet, err := parseEncoded(p)
			if !yield(packet, err) || err != nil {
				return
			}
		}
	}
}

// base64Strict accepts only what encoders make. It has to reject line breaks itself, which encoding/base64 ignores.
var base64Strict = base64.StdEncoding.Strict()

// parseEncoded parses a packet of a payload.
func parseEncoded(p []byte) (EnginePacket, *frame.CloseError) {
	if len(p) == 0 || p[0] != binaryPrefix {
		return parseText(p)
	}
	data := make([]byte, base64Strict.DecodedLen(len(p)-1))
	n, err := base64Strict.Decode(data, p[1:])
	if err != nil || bytes.ContainsAny(p, "\r\n") {
		return EnginePacket{}, invalid("invalid base64")
	}
	return EnginePacket{EngineMessage, true, data[:n]}, nil
}

// AppendPayload turns WebSocket frames, as AppendEvent makes them, into a payload: the body of the answer to a GET. It stops
// before the packet with which the payload would be longer than max, but appends at least one, and returns the frames that
// are left. A close frame becomes a close packet, and ends the payload. An incomplete frame is left.
//
// The hub makes the same bytes for all clients of Socket.IO. Those that poll keep them until the next GET.
func AppendPayload(dst, frames []byte, max int) (payload, left []byte) {
	start := len(dst)
	for {
		op, data, rest, ok := cutFrame(frames)
		if !ok {
			return dst, frames
		}
		n := len(data)
		if op == frame.Binary {
			n = 1 + base64.StdEncoding.EncodedLen(n)
		}
		if len(dst) > start {
			if len(dst)-start+1+n > max {
				return dst, frames
			}
			if op == frame.Text || op == frame.Binary || op == frame.Close {
				dst = append(dst, Separator)
			}
		}
		switch op {
		case frame.Text:
			dst = append(dst, data...)
		case frame.Binary:
			dst = base64.StdEncoding.AppendEncode(append(dst, binaryPrefix), data)
		case frame.Close:
			return append(dst, byte(EngineClose)), nil
		}
		frames = rest
	}
}

// BeginsWhole reports whether the first of some frames is whole, so that AppendPayload has something to append.
func BeginsWhole(frames []byte) bool {
	_, _, _, ok := cutFrame(frames)
	return ok
}

// cutFrame cuts a frame that a server made: whole, neither masked nor deflated.
func cutFrame(p []byte) (op frame.Opcode, data, rest []byte, ok bool) {
	if len(p) < 2 {
		return 0, nil, nil, false
	}
	header, n := 2, uint64(p[1])
	switch {
	case n == 126 && len(p) >= 4:
		header, n = 4, uint64(binary.BigEndian.Uint16(p[2:]))
	case n == 127 && len(p) >= 10:
		header, n = 10, binary.BigEndian.Uint64(p[2:])
	case n >= 126:
		return 0, nil, nil, false
	}
	if n > uint64(len(p)-header) {
		return 0, nil, nil, false
	}
	end := header + int(n)
	return frame.Opcode(p[0] & 0x0f), p[header:end], p[end:], true
}
