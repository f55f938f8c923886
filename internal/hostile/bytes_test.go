package hostile_test

import (
	"encoding/binary"
	"strings"

	"github.com/caddy-broadcast/caddy-broadcast/internal/frame/frametest"
)

const handshake = "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

// swap changes the handshake.
func swap(old, new string) string { return strings.Replace(handshake, old, new, 1) + "\r\n" }

// with adds header fields to the handshake, and what follows it.
func with(fields string) string { return handshake + fields }

// mask makes a client's frame.
func mask(first byte, payload string) string { return string(frametest.Mask(first, payload)) }

// goodbye makes a close frame.
func goodbye(code uint16, reason string) string {
	return mask(0x88, string(binary.BigEndian.AppendUint16(nil, code))+reason)
}

// inParts makes frames of a message, of 100 bytes each.
func inParts(first byte, payload string) string {
	var b strings.Builder
	for len(payload) > 100 {
		b.WriteString(mask(first, payload[:100]))
		first, payload = 0, payload[100:]
	}
	b.WriteString(mask(first|0x80, payload))
	return b.String()
}
