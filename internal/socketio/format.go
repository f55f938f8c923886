package socketio

import (
	"slices"

	"github.com/caddy-broadcast/caddy-broadcast/internal/frame"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol"
	"github.com/caddy-broadcast/caddy-broadcast/internal/socketio/packet"
)

// Format implements hub.Format: a message is an event, in WebSocket frames for all clients. Those that poll get packets of
// them: see transport. It knows no namespace, because a connection may be in several: a message's channel tells it.
type Format struct {
	// Offsets has each event end with its ID, from which a client can recover its session.
	Offsets bool
}

// Append appends the packets of each message.
func (f Format) Append(dst []byte, run []*hub.Message) []byte {
	var id [64]byte
	for _, m := range run {
		o := packet.Outgoing{Channel: m.Channel, Event: m.Event, Data: m.Data, Kind: m.Kind}
		if m.Emit != nil {
			o.Args, o.Attachments = m.Emit.Args, m.Emit.Attachments
		}
		if f.Offsets {
			o.Offset = m.AppendID(id[:0])
		}
		dst = packet.AppendEvent(dst, &o)
	}
	return dst
}

// Notice implements hub.NoticeFormat: an event in the namespace of the channel. It has no offset, because it is not recovered.
func (Format) Notice(name, channel string, data []byte) []byte {
	return packet.AppendEvent(nil, &packet.Outgoing{Channel: channel, Event: name, Data: data, Kind: hub.JSON})
}

// Ping returns a ping of Engine.IO.
func (Format) Ping() []byte { return packet.PingFrame }

// PingsBusy implements hub.PacedFormat: messages are no sign of life to a client of Engine.IO v4, only pings are.
func (Format) PingsBusy() bool { return true }

// Close returns a close frame.
func (Format) Close(why hub.Reason, text string) []byte {
	return frame.CloseFrame(protocol.CloseCode(why), text)
}

// CloseOn implements hub.PartingFormat: a client that has to stay away is taken out of all its namespaces first. It connects
// again for as long as it is in one.
func (f Format) CloseOn(channels []string, why hub.Reason, text string) (p []byte) {
	if packet.StaysAway(why) {
		p = disconnects(channels)
	}
	return append(p, f.Close(why, text)...)
}

// CloseCode implements hub.CodedFormat. Pages cannot see the code, so all codes are the same to them.
func (Format) CloseCode(channels []string, code uint16, text string) []byte {
	return append(disconnects(channels), frame.CloseFrame(frame.Code(code), text)...)
}

// disconnects takes a client out of the namespaces of its channels.
func disconnects(channels []string) (p []byte) {
	namespaces := []string{packet.MainNamespace} // also if the route lets nobody subscribe
	for _, c := range channels {
		if n := packet.Namespace(c); !slices.Contains(namespaces, n) {
			namespaces = append(namespaces, n)
		}
	}
	for _, n := range namespaces {
		p = append(p, textFrame(packet.AppendDisconnect(nil, n))...)
	}
	return p
}

// Gap returns nil: Socket.IO has no such thing.
func (Format) Gap([]string) []byte { return nil }

// ClosesOnGap implements hub.GaplessFormat: a page learns from socket.recovered that it has missed something.
func (f Format) ClosesOnGap() bool { return f.Offsets }
