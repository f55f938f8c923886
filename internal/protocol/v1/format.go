package v1

import (
	"encoding/base64"
	"encoding/json"
	"slices"
	"strconv"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/frame"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol"
)

// Format implements hub.Format for WebSockets: JSON in text frames, each of them an array, so that all messages that are
// written together are one frame.
type Format struct {
	// MinDeflate is the size in bytes from which a frame is deflated, for a connection that has negotiated
	// permessage-deflate; 0 is never.
	MinDeflate int
}

// heartbeat is a ping, and an empty array for pages, which cannot see pings.
var heartbeat = append(slices.Clip(frame.PingFrame), frame.TextFrame("[]")...)

// Append appends a frame with all messages.
func (f Format) Append(dst []byte, run []*hub.Message) []byte {
	return f.frame(dst, func(p []byte) []byte { return appendMessages(p, run) })
}

// appendMessages appends the objects of messages, with commas between them. It is on the path of every delivery, so it
// appends to the batch and leaves no garbage, as encoding/json would.
func appendMessages(dst []byte, run []*hub.Message) []byte {
	for i, m := range run {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = m.AppendID(append(dst, `{"id":"`...))
		dst = protocol.AppendString(append(dst, `","channel":`...), m.Channel)
		if m.Event != "" {
			dst = protocol.AppendString(append(dst, `,"event":`...), m.Event)
		}
		dst = append(dst, `,"data":`...)
		switch m.Kind {
		case hub.JSON:
			dst = append(dst, m.Data...) // it was checked when it was published
		case hub.Text:
			dst = protocol.AppendString(dst, m.Data)
		default:
			dst = append(base64.StdEncoding.AppendEncode(append(dst, '"'), m.Data), `","encoding":"base64"`...)
		}
		dst = append(dst, '}')
	}
	return dst
}

// frame appends a text frame with an array of what fill appends.
func (f Format) frame(dst []byte, fill func([]byte) []byte) []byte {
	// The header has to tell the length: leave room for the longest one, and close the hole if it is shorter. That moves
	// the payload once, where encoding it to a buffer first would copy it and allocate.
	start := len(dst)
	dst = append(dst, make([]byte, frame.MaxHeader)...) // the compiler makes no slice for this
	dst = append(fill(append(dst, '[')), ']')
	payload := dst[start+frame.MaxHeader:]
	op := frame.Text
	if f.MinDeflate > 0 && len(payload) >= f.MinDeflate {
		if p := frame.Deflate(payload); len(p) < len(payload) {
			op, payload = op|frame.Deflated, p
		}
	}
	dst = frame.AppendHeader(dst[:start], op, len(payload))
	// There is room: the payload was in this array, after a longer header, or was deflated from one that was.
	n := copy(dst[len(dst):cap(dst)], payload)
	return dst[:len(dst)+n]
}

// hello is what a client gets first.
type hello struct {
	connection   string   // its ID
	channels     []string // that it is on
	welcome      hub.Welcome
	pingInterval time.Duration
	expires      time.Time // when its access ends, if it does
	errors       []byte    // about what it asked for with the handshake, as appendError makes them
}

func (f Format) hello(h hello) []byte { return f.frame(nil, h.append) }

// append appends the hello and, in one frame with it, the gap and the errors. Its ID is the position from which the client
// would resume if it were disconnected before the first message.
func (h hello) append(p []byte) []byte {
	p = append(append(p, `{"hello":{"connection":"`...), h.connection...)
	p = protocol.AppendStrings(append(p, `","channels":`...), h.channels)
	p = append(append(append(p, `,"id":"`...), h.welcome.ID...), `","resumed":`...)
	p = append(strconv.AppendBool(p, h.welcome.Resumed), `,"heartbeat":`...)
	p = strconv.AppendInt(p, int64(h.pingInterval/time.Second), 10)
	if !h.expires.IsZero() {
		// Not a date: the client's clock may be wrong.
		p = strconv.AppendInt(append(p, `,"expires":`...), int64(max(0, time.Until(h.expires)/time.Second)), 10)
	}
	p = append(p, "}}"...)
	if h.welcome.Gaps != nil { // in one frame with the position, so that a client has both or neither
		p = append(protocol.AppendGap(append(p, `,{"gap":`...), h.welcome.Gaps, h.welcome.ID), '}')
	}
	if len(h.errors) > 0 {
		p = append(append(p, ','), h.errors...)
	}
	return p
}

// joined returns the answer to a join, with the gap or the messages that the client has missed.
func (f Format) joined(ref json.RawMessage, channel string, w hub.Welcome, replay []*hub.Message) []byte {
	return f.frame(nil, func(p []byte) []byte {
		p = appendRef(append(p, `{"ack":{`...), ref)
		p = protocol.AppendString(append(p, `"channel":`...), channel)
		p = append(append(append(p, `,"id":"`...), w.ID...), `","resumed":`...)
		p = append(strconv.AppendBool(p, w.Resumed), "}}"...)
		return appendPosition(appendMissed(p, w, replay), channel, w, replay)
	})
}

// appendMissed appends the gap or the messages of a channel that the client begins with, and a comma before them.
func appendMissed(p []byte, w hub.Welcome, replay []*hub.Message) []byte {
	if w.Gaps != nil {
		p = append(protocol.AppendGap(append(p, `,{"gap":`...), w.Gaps, w.ID), '}')
	}
	if len(replay) > 0 {
		p = appendMessages(append(p, ','), replay)
	}
	return p
}

// Subscribed implements hub.SubscriptionFormat.
func (f Format) Subscribed(channel string, w hub.Welcome, missed []*hub.Message) []byte {
	return f.frame(nil, func(p []byte) []byte { return appendSubscription(p, channel, w, missed) })
}

// appendSubscription appends what a client begins a channel with that a backend has subscribed it to.
func appendSubscription(p []byte, channel string, w hub.Welcome, missed []*hub.Message) []byte {
	return appendPosition(appendMissed(appendSubscribed(p, channel, w.ID), w, missed), channel, w, missed)
}

// appendPosition appends, and a comma before it, the position that a client has to resume from after what it has missed of a channel,
// if the last of these messages may not be the newest one that it has: it may have had others of other channels.
func appendPosition(p []byte, channel string, w hub.Welcome, missed []*hub.Message) []byte {
	if n := len(missed); n > 0 && w.Now != "" && w.Now != missed[n-1].ID() {
		p = appendSubscribed(append(p, ','), channel, w.Now)
	}
	return p
}

// appendSubscribed appends the notice that a backend has subscribed the client to a channel, with a position.
func appendSubscribed(p []byte, channel, id string) []byte {
	p = protocol.AppendString(append(p, `{"subscribed":{"channel":`...), channel)
	return append(append(append(p, `,"id":"`...), id...), `"}}`...)
}

// Unsubscribed implements hub.SubscriptionFormat.
func (f Format) Unsubscribed(channel string) []byte {
	return f.frame(nil, func(p []byte) []byte { return appendUnsubscribed(p, channel) })
}

func appendUnsubscribed(p []byte, channel string) []byte {
	return append(protocol.AppendString(append(p, `{"unsubscribed":{"channel":`...), channel), "}}"...)
}

// reply returns a frame of acks and errors, as appendAck and appendError make them.
func (f Format) reply(answers []byte) []byte {
	return f.frame(nil, func(p []byte) []byte { return append(p, answers...) })
}

// appendAck appends the ack of a request, and a comma before it if it is not the first. ID is that of a message that was
// published.
func appendAck(dst []byte, ref json.RawMessage, id string) []byte {
	dst = appendRef(append(appendComma(dst), `{"ack":{`...), ref)
	if id != "" {
		return append(append(append(dst, `"id":"`...), id...), `"}}`...)
	}
	return append(dst[:len(dst)-1], "}}"...) // without the comma after the ref: an ack has a ref or an ID
}

// appendError appends the error that answers a request, and a comma before it if it is not the first.
func appendError(dst []byte, ref json.RawMessage, code, message string) []byte {
	dst = appendRef(append(appendComma(dst), `{"error":{`...), ref)
	dst = protocol.AppendString(append(dst, `"code":`...), code)
	return append(protocol.AppendString(append(dst, `,"message":`...), message), "}}"...)
}

// appendComma appends a comma if something comes before.
func appendComma(dst []byte) []byte {
	if len(dst) > 0 {
		return append(dst, ',')
	}
	return dst
}

// appendRef appends the ref as it came: parse has found that it is short and valid.
func appendRef(dst []byte, ref json.RawMessage) []byte {
	if len(ref) == 0 {
		return dst
	}
	return append(append(append(dst, `"ref":`...), ref...), ',')
}

// Notice implements hub.NoticeFormat.
func (f Format) Notice(name, _ string, data []byte) []byte {
	return f.frame(nil, func(p []byte) []byte { return appendNotice(p, name, data) })
}

// appendNotice appends the object of a notice: its name is that of the only member.
func appendNotice(p []byte, name string, data []byte) []byte {
	return append(append(append(protocol.AppendString(append(p, '{'), name), ':'), data...), '}')
}

// Ping returns a ping and a heartbeat.
func (Format) Ping() []byte { return heartbeat }

// Close returns a close frame.
func (Format) Close(why hub.Reason, text string) []byte {
	return frame.CloseFrame(protocol.CloseCode(why), text)
}

// CloseCode implements hub.CodedFormat.
func (Format) CloseCode(_ []string, code uint16, text string) []byte {
	return frame.CloseFrame(frame.Code(code), text)
}

// Gap returns a frame with a gap. It has no ID: the position at which the loop drops messages is not known here.
func (f Format) Gap(channels []string) []byte { return f.GapAt(channels, "") }

// GapAt returns a frame with a gap that ends at a position.
func (f Format) GapAt(channels []string, id string) []byte {
	return f.frame(nil, func(p []byte) []byte { return append(protocol.AppendGap(append(p, `{"gap":`...), channels, id), '}') })
}
