// Package envelope is the header that brokers which carry bytes put in front of the data of an entry.
package envelope

import (
	"encoding/binary"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// What is before the data of an entry:
//
//	1 byte    version
//	1 byte    flags: whether there is a key
//	1 byte    kind
//	8 bytes   node
//	1-10      connection, a varint
//	1 byte    length of the event, and the event
//	24 bytes  key and digest, if there is a key
//
// Headers would be the usual place. The client library makes a map of them for each message, which costs the receiver 0.6 of
// 2.1 microseconds (scaleout.md, section 2.4).
const (
	version = 0xb1 // not the first byte of UTF-8, so that no text is taken for an entry
	flagKey = 1
)

// MaxSize is the size of the largest envelope.
const MaxSize = 3 + 8 + binary.MaxVarintLen64 + 1 + 255 + 16 + 8

// Encode returns an entry as bytes. The channel is not among them: the broker has it in the name that the entry is
// published on.
func Encode(e *broker.Entry) []byte {
	b := make([]byte, 0, 3+8+3+1+len(e.Event)+24+len(e.Data))
	var flags byte
	if e.Key != [16]byte{} {
		flags = flagKey
	}
	b = append(b, version, flags, e.Kind)
	b = binary.LittleEndian.AppendUint64(b, e.Node)
	b = binary.AppendUvarint(b, e.Conn)
	b = append(b, byte(len(e.Event)))
	b = append(b, e.Event...)
	if flags&flagKey != 0 {
		b = append(b, e.Key[:]...)
		b = binary.LittleEndian.AppendUint64(b, e.Digest)
	}
	return append(b, e.Data...)
}

// Decode fills an entry from b, which its Data is then a part of. It reports whether b was made by Encode.
func Decode(b []byte, e *broker.Entry) bool {
	if len(b) < 13 || b[0] != version || b[1]&^flagKey != 0 {
		return false
	}
	flags := b[1]
	e.Kind, e.Node = b[2], binary.LittleEndian.Uint64(b[3:])
	b = b[11:]
	conn, n := binary.Uvarint(b)
	if n <= 0 || n == len(b) {
		return false
	}
	size := int(b[n])
	b = b[n+1:]
	if size > len(b) {
		return false
	}
	e.Conn, e.Event = conn, string(b[:size])
	b = b[size:]
	if flags&flagKey != 0 {
		if len(b) < 24 {
			return false
		}
		copy(e.Key[:], b)
		if e.Key == [16]byte{} {
			return false
		}
		e.Digest = binary.LittleEndian.Uint64(b[16:])
		b = b[24:]
	}
	e.Data = b
	return true
}
