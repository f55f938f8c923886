package wire

import (
	"encoding/base64"
	"encoding/json"
	"strconv"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// V1Protocol is the name of the subprotocol.
const V1Protocol = "broadcast.v1"

// V1 is the format of the subprotocol broadcast.v1: JSON in text frames, each of them an array, so that all messages
// that are written at once are one frame.
type V1 struct {
	// MinDeflate is the size in bytes from which a frame is deflated; see Raw.
	MinDeflate int
}

// A page cannot see pings, so an empty array comes with each.
var heartbeat = []byte{ping, 0, text, 2, '[', ']'}

// Append appends a frame with all messages.
func (f V1) Append(dst []byte, run []*hub.Message) []byte {
	return f.frame(dst, func(p []byte) []byte { return appendMessages(p, run) })
}

func appendMessages(dst []byte, run []*hub.Message) []byte {
	for i, m := range run {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = m.AppendID(append(dst, `{"id":"`...))
		dst = appendString(append(dst, `","channel":`...), m.Channel)
		if m.Event != "" {
			dst = appendString(append(dst, `,"event":`...), m.Event)
		}
		dst = append(dst, `,"data":`...)
		switch m.Kind {
		case hub.JSON:
			dst = append(dst, m.Data...)
		case hub.Text:
			dst = appendString(dst, m.Data)
		default:
			dst = append(base64.StdEncoding.AppendEncode(append(dst, '"'), m.Data), `","encoding":"base64"`...)
		}
		dst = append(dst, '}')
	}
	return dst
}

// frame appends a text frame with an array of what fill appends.
func (f V1) frame(dst []byte, fill func([]byte) []byte) []byte {
	// The header has to tell the length: leave room for the longest, and close the hole if it is shorter.
	start := len(dst)
	dst = append(dst, make([]byte, maxHeader)...)
	dst = append(fill(append(dst, '[')), ']')
	payload := dst[start+maxHeader:]
	first := byte(text)
	if f.MinDeflate > 0 && len(payload) >= f.MinDeflate {
		if p := deflate(payload); len(p) < len(payload) {
			first |= rsv1
			payload = p
		}
	}
	dst = appendHeader(dst[:start], first, len(payload))
	n := copy(dst[len(dst):cap(dst)], payload)
	return dst[:len(dst)+n]
}

// maxHeader is the length of the longest header of a frame that is not masked.
const maxHeader = 10

// Hello is what a client is told first.
type Hello struct {
	Connection   hub.ConnID
	Channels     []string // that it is on
	Welcome      hub.Welcome
	PingInterval time.Duration
	Errors       []byte // of what it asked for with the handshake, as AppendError makes them
}

// Hello returns the first frame.
func (f V1) Hello(h Hello) []byte { return f.frame(nil, h.append) }

func (h Hello) append(p []byte) []byte {
	p = h.Connection.Append(append(p, `{"hello":{"connection":"`...))
	p = appendStrings(append(p, `","channels":`...), h.Channels)
	p = append(append(append(p, `,"id":"`...), h.Welcome.ID...), `","resumed":`...)
	p = append(strconv.AppendBool(p, h.Welcome.Resumed), `,"heartbeat":`...)
	p = append(strconv.AppendInt(p, int64(h.PingInterval/time.Second), 10), "}}"...)
	if h.Welcome.Lost != nil { // in one frame with the position, so that a client has both or neither
		p = append(appendGap(append(p, `,{"gap":`...), h.Welcome.Lost, h.Welcome.ID), '}')
	}
	if len(h.Errors) > 0 {
		p = append(append(p, ','), h.Errors...)
	}
	return p
}

// Joined returns the answer to a join, with the gap or the messages that the client has missed.
func (f V1) Joined(ref json.RawMessage, channel string, w hub.Welcome, replay []*hub.Message) []byte {
	return f.frame(nil, func(p []byte) []byte {
		p = appendRef(append(p, `{"ack":{`...), ref)
		p = appendString(append(p, `"channel":`...), channel)
		p = append(append(append(p, `,"id":"`...), w.ID...), `","resumed":`...)
		p = append(strconv.AppendBool(p, w.Resumed), "}}"...)
		if w.Lost != nil {
			p = append(appendGap(append(p, `,{"gap":`...), w.Lost, w.ID), '}')
		}
		if len(replay) > 0 {
			p = appendMessages(append(p, ','), replay)
		}
		return p
	})
}

// Frame returns a frame of what the following have appended to each other, with commas between them.
func (f V1) Frame(answers []byte) []byte {
	return f.frame(nil, func(p []byte) []byte { return append(p, answers...) })
}

// AppendAck appends the answer to a request that was good; id is that of a message published.
func AppendAck(dst []byte, ref json.RawMessage, id string) []byte {
	dst = appendRef(append(appendComma(dst), `{"ack":{`...), ref)
	if id != "" {
		return append(append(append(dst, `"id":"`...), id...), `"}}`...)
	}
	return append(dst[:len(dst)-1], "}}"...)
}

// AppendError appends the answer to one that was not.
func AppendError(dst []byte, ref json.RawMessage, code, message string) []byte {
	dst = appendRef(append(appendComma(dst), `{"error":{`...), ref)
	dst = appendString(append(dst, `"code":`...), code)
	return append(appendString(append(dst, `,"message":`...), message), "}}"...)
}

func appendComma(dst []byte) []byte {
	if len(dst) > 0 {
		return append(dst, ',')
	}
	return dst
}

func appendRef(dst []byte, ref json.RawMessage) []byte {
	if len(ref) == 0 {
		return dst
	}
	return append(append(append(dst, `"ref":`...), ref...), ',')
}

// Ping returns a ping and a heartbeat.
func (V1) Ping() []byte { return heartbeat }

// Close returns a close frame.
func (V1) Close(why hub.Reason, text string) []byte { return Raw{}.Close(why, text) }

// Gap returns a frame with a gap.
func (f V1) Gap(channels []string) []byte {
	return f.frame(nil, func(p []byte) []byte { return append(appendGap(append(p, `{"gap":`...), channels, ""), '}') })
}

// appendGap appends which channels miss messages, and, if it is known, the position from which on nothing is missing.
func appendGap(dst []byte, channels []string, id string) []byte {
	dst = appendStrings(append(dst, `{"channels":`...), channels)
	if id != "" {
		dst = append(append(append(dst, `,"id":"`...), id...), '"')
	}
	return append(dst, '}')
}

func appendStrings(dst []byte, ss []string) []byte {
	dst = append(dst, '[')
	for i, s := range ss {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendString(dst, s)
	}
	return append(dst, ']')
}

// appendString appends a JSON string (RFC 8259, section 7). s is UTF-8.
func appendString[T string | []byte](dst []byte, s T) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	from := 0
	for i := range len(s) {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, s[from:i]...)
		from = i + 1
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	return append(append(dst, s[from:]...), '"')
}
