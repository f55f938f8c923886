package hostile_test

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"io"
	"strings"

	"github.com/gobwas/ws"
)

const handshake = "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

// swap changes the handshake.
func swap(old, new string) string { return strings.Replace(handshake, old, new, 1) + "\r\n" }

// with adds header fields to the handshake, and what follows it.
func with(fields string) string { return handshake + fields }

// mask makes a client's frame.
func mask(first byte, payload string) string {
	h := ws.Header{Fin: first&0x80 != 0, Rsv: first >> 4 & 7, OpCode: ws.OpCode(first & 0x0f), Masked: true,
		Mask: [4]byte{1, 2, 3, 4}, Length: int64(len(payload))}
	var b bytes.Buffer
	if err := ws.WriteHeader(&b, h); err != nil {
		panic(err)
	}
	p := []byte(payload)
	ws.Cipher(p, h.Mask, 0)
	b.Write(p)
	return b.String()
}

// goodbye makes a close frame.
func goodbye(code uint16, reason string) string {
	return mask(0x88, string(binary.BigEndian.AppendUint16(nil, code))+reason)
}

// deflated is what a client that deflates sends.
func deflated(s string) string {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, 9)
	io.WriteString(w, s)
	w.Flush()
	return strings.TrimSuffix(b.String(), "\x00\x00\xff\xff")
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
