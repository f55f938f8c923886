package v1

import (
	"bytes"
	"strconv"

	"github.com/caddy-broadcast/caddy-broadcast/internal/eventstream"
	"github.com/caddy-broadcast/caddy-broadcast/internal/frame"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol"
)

// StreamFormat implements hub.Format for event streams: the data of each event is what a WebSocket gets in a frame, and
// its ID that of the last message. Events have no type. Pages see the heartbeat too.
type StreamFormat struct{}

// heartbeatEvent is an empty array, as on a WebSocket: a comment would not reach a page's script.
var heartbeatEvent = []byte("data: []\n\n")

// Append appends one event with all messages, in one line. JSON may have been published in several lines. Their ends are
// white space and can be replaced: inside a JSON string they would be escaped.
func (StreamFormat) Append(dst []byte, run []*hub.Message) []byte {
	dst = append(run[len(run)-1].AppendID(append(dst, "id: "...)), "\ndata: ["...)
	start := len(dst)
	dst = appendMessages(dst, run)
	oneLine(dst[start:], '\r')
	oneLine(dst[start:], '\n')
	return append(dst, "]\n\n"...)
}

// oneLine replaces each byte that ends a line by a space.
func oneLine(p []byte, end byte) {
	for i := bytes.IndexByte(p, end); i >= 0; i = bytes.IndexByte(p, end) {
		p[i] = ' '
		p = p[i+1:]
	}
}

// start returns what a stream starts with.
func (StreamFormat) start(h hello) []byte {
	p := append(append(append(eventstream.Retry(), "id: "...), h.welcome.ID...), "\ndata: ["...)
	return append(h.append(p), "]\n\n"...) // channels and errors have no line ends: control characters are escaped
}

// Gap returns an event with a gap.
func (f StreamFormat) Gap(channels []string) []byte { return f.GapAt(channels, "") }

// GapAt returns an event with a gap that ends at a position.
func (StreamFormat) GapAt(channels []string, id string) (p []byte) {
	if id != "" {
		p = append(append(append(p, "id: "...), id...), '\n')
	}
	return append(protocol.AppendGap(append(p, `data: [{"gap":`...), channels, id), "}]\n\n"...)
}

// Subscribed implements hub.SubscriptionFormat. The event has the ID of the position, and not of its last message: the client may
// have later ones, of other channels.
func (StreamFormat) Subscribed(channel string, w hub.Welcome, missed []*hub.Message) []byte {
	p := append(append([]byte("id: "), w.Now...), "\ndata: ["...)
	start := len(p)
	p = appendSubscription(p, channel, w, missed)
	oneLine(p[start:], '\r')
	oneLine(p[start:], '\n')
	return append(p, "]\n\n"...)
}

// Unsubscribed implements hub.SubscriptionFormat.
func (StreamFormat) Unsubscribed(channel string) []byte {
	return append(appendUnsubscribed([]byte("data: ["), channel), "]\n\n"...)
}

// Notice implements hub.NoticeFormat. It has no ID, because it is not resumed.
func (StreamFormat) Notice(name, _ string, data []byte) []byte {
	return append(appendNotice([]byte("data: ["), name, data), "]\n\n"...)
}

// Ping returns an event without messages.
func (StreamFormat) Ping() []byte { return heartbeatEvent }

// Close returns when to reconnect.
func (f StreamFormat) Close(why hub.Reason, text string) []byte {
	return f.CloseCode(nil, uint16(protocol.CloseCode(why)), text)
}

// CloseCode implements hub.CodedFormat. To a client that has to stay away it returns an event with the code, because nothing else
// tells the end of a stream from a lost connection.
func (StreamFormat) CloseCode(_ []string, code uint16, text string) []byte {
	p := eventstream.Retry()
	if frame.Code(code).StaysAway() {
		p = strconv.AppendUint(append(p, `data: [{"close":{"code":`...), uint64(code), 10)
		p = append(protocol.AppendString(append(p, `,"reason":`...), text), "}}]\n\n"...)
	}
	return p
}
