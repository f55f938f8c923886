package raw

import (
	"github.com/caddy-broadcast/caddy-broadcast/internal/frame"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol"
)

// Format implements hub.Format: a message is a frame.
type Format struct {
	// MinDeflate is the size in bytes from which a message is deflated, for a connection that has negotiated
	// permessage-deflate; 0 is never.
	MinDeflate int
}

// deflated is the key under which a message keeps its deflated data. All loops share it, as deflating costs far more
// than writing.
type deflated struct{}

func deflate(m *hub.Message) []byte { return frame.Deflate(m.Data) }

// Append appends a frame for each message.
func (f Format) Append(dst []byte, run []*hub.Message) []byte {
	for _, m := range run {
		op, data := frame.Text, m.Data
		if m.Kind == hub.Binary {
			op = frame.Binary
		}
		if f.MinDeflate > 0 && len(data) >= f.MinDeflate {
			if p := m.Encoded(deflated{}, deflate); len(p) < len(data) {
				op, data = op|frame.Deflated, p
			}
		}
		dst = append(frame.AppendHeader(dst, op, len(data)), data...)
	}
	return dst
}

// Ping returns an empty ping frame.
func (Format) Ping() []byte { return frame.PingFrame }

// Close returns a close frame.
func (Format) Close(why hub.Reason, text string) []byte {
	return frame.CloseFrame(protocol.CloseCode(why), text)
}

// CloseCode implements hub.CodedFormat.
func (Format) CloseCode(_ []string, code uint16, text string) []byte {
	return frame.CloseFrame(frame.Code(code), text)
}

// Gap returns nil: a raw client gets nothing but what was published.
func (Format) Gap([]string) []byte { return nil }
