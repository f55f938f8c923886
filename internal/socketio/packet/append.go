package packet

import (
	"github.com/caddy-broadcast/caddy-broadcast/internal/frame"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol"
)

// DefaultEvent is the event of messages that have none, as socket.send of the npm package emits it.
const DefaultEvent = "message"

// PingFrame is a ping of Engine.IO, in a WebSocket frame. Clients do not see pings of WebSockets, and close their connection if no
// ping of Engine.IO comes, whatever else does. It is shared and must not be changed.
var PingFrame = frame.TextFrame(string(EnginePing))

// Outgoing is an event for clients. The first six fields are those of a message.
type Outgoing struct {
	Channel     string
	Event       string
	Data        []byte
	Kind        hub.Kind
	Args        []byte // if set, it is sent instead of Data, with the Attachments; as NewContent makes it
	Attachments [][]byte

	// Offset is the message's ID, if the client can recover its session. It becomes the last argument: the npm package
	// takes the last argument of each event, if it is a string, for the position from which the session would go on.
	Offset []byte
}

// placeholder stands for the only attachment of an event.
const placeholder = `{"_placeholder":true,"num":0}`

// AppendEvent appends an event in WebSocket frames: one with the packet, and one for each attachment. It appends nothing for
// an event with a reserved name. It allocates nothing if dst has room.
func AppendEvent(dst []byte, e *Outgoing) []byte {
	if Reserved(e.Event) {
		return dst
	}
	// The header comes first and tells the length. The estimate is right unless something is escaped.
	start, estimate := len(dst), e.estimate()
	dst = frame.AppendHeader(dst, frame.Text, estimate)
	body := len(dst)
	dst = appendPacket(dst, e)
	if n := len(dst) - body; n != estimate {
		dst = mendHeader(dst, start, body)
	}
	if e.Args == nil {
		if e.Kind == hub.Binary {
			dst = append(frame.AppendHeader(dst, frame.Binary, len(e.Data)), e.Data...)
		}
		return dst
	}
	for _, a := range e.Attachments {
		dst = append(frame.AppendHeader(dst, frame.Binary, len(a)), a...)
	}
	return dst
}

// estimate returns how long the packet is if nothing in it has to be escaped.
func (e *Outgoing) estimate() int {
	event := len(e.Event)
	if event == 0 {
		event = len(DefaultEvent)
	}
	n := len(`42["",]`) + event
	switch {
	case e.Args != nil:
		n += len(e.Args) - len("[]")
	case e.Kind == hub.Binary:
		n += len("1-") + len(placeholder)
	case e.Kind == hub.Text:
		n += len(e.Data) + len(`""`)
	default:
		n += len(e.Data)
	}
	if len(e.Channel) > 0 && e.Channel[0] == '/' {
		n += len(Namespace(e.Channel)) + len(",")
	}
	if e.Offset != nil {
		n += len(e.Offset) + len(`,""`)
	}
	return n
}

// mendHeader makes the header right of the last frame, which starts at start and whose payload starts at body. If it grows or
// shrinks, the payload moves.
func mendHeader(dst []byte, start, body int) []byte {
	n := len(dst) - body
	var header [frame.MaxHeader]byte
	h := frame.AppendHeader(header[:0], frame.Text, n)
	dst = append(dst, header[:]...) // room
	copy(dst[start+len(h):], dst[body:body+n])
	copy(dst[start:], h)
	return dst[:start+len(h)+n]
}

// appendPacket appends the packet that is the text of an event.
func appendPacket(dst []byte, e *Outgoing) []byte {
	switch {
	case e.Args == nil && e.Kind == hub.Binary:
		dst = append(dst, byte(EngineMessage), byte(BinaryEvent), '1', '-')
	case e.Args != nil && len(e.Attachments) > 0: // never 0-, for which the npm package's decoder throws
		dst = append(dst, byte(EngineMessage), byte(BinaryEvent))
		if n := len(e.Attachments); n >= 10 {
			dst = append(dst, '0'+byte(n/10))
		}
		dst = append(dst, '0'+byte(len(e.Attachments)%10), '-')
	default:
		dst = append(dst, byte(EngineMessage), byte(Event))
	}
	if len(e.Channel) > 0 && e.Channel[0] == '/' {
		dst = appendNamespace(dst, Namespace(e.Channel))
	}
	switch {
	case e.Event == "":
		dst = append(dst, `["`+DefaultEvent+`"`...)
	case plain(e.Event):
		dst = append(append(append(dst, `["`...), e.Event...), '"')
	default:
		dst = protocol.AppendString(append(dst, '['), e.Event)
	}
	switch {
	case e.Args != nil:
		if len(e.Args) > len("[]") {
			dst = append(append(dst, ','), e.Args[1:len(e.Args)-1]...)
		}
	case e.Kind == hub.JSON:
		dst = append(append(dst, ','), e.Data...)
	case e.Kind == hub.Text:
		dst = protocol.AppendString(append(dst, ','), e.Data)
	default:
		dst = append(dst, ","+placeholder...)
	}
	if e.Offset != nil {
		dst = append(append(append(dst, `,"`...), e.Offset...), '"')
	}
	return append(dst, ']')
}

// plain reports whether nothing in a string has to be escaped.
func plain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// appendNamespace appends the namespace of a packet. The main one is not named.
func appendNamespace(dst []byte, namespace string) []byte {
	if namespace == "" || namespace == MainNamespace {
		return dst
	}
	return append(append(dst, namespace...), ',')
}
