package wire

import (
	"bytes"
	"encoding/base64"
	"math/rand/v2"
	"strconv"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// EventStream is the format of text/event-stream (HTML Standard, section 9.2): a message is an event with its ID, of
// the type that its publisher named. Binary data is in base64.
type EventStream struct{}

var comment = []byte(":\n\n")

// Append appends an event a message.
func (EventStream) Append(dst []byte, run []*hub.Message) []byte {
	for _, m := range run {
		dst = append(m.AppendID(append(dst, "id: "...)), '\n')
		if m.Event != "" {
			dst = append(append(append(dst, "event: "...), m.Event...), '\n')
		}
		if m.Kind == hub.Binary {
			dst = append(base64.StdEncoding.AppendEncode(append(dst, "data: "...), m.Data), '\n')
		} else {
			dst = appendLines(dst, m.Data)
		}
		dst = append(dst, '\n')
	}
	return dst
}

// appendLines appends a data field a line. What ends a line of an event stream, CR, LF or both, ends one of the data.
// Each CR and LF is searched for once, so that the time grows with the length alone.
func appendLines(dst, data []byte) []byte {
	from, cr, lf := 0, next(data, 0, '\r'), next(data, 0, '\n')
	for {
		end := min(cr, lf)
		dst = append(append(append(dst, "data: "...), data[from:end]...), '\n')
		if end == len(data) {
			return dst
		}
		from = end + 1
		if end == cr && lf == from && lf < len(data) {
			from++
		}
		if cr < from {
			cr = next(data, from, '\r')
		}
		if lf < from {
			lf = next(data, from, '\n')
		}
	}
}

// next returns where a byte is next in data, or its length.
func next(data []byte, from int, b byte) int {
	if i := bytes.IndexByte(data[from:], b); i >= 0 {
		return from + i
	}
	return len(data)
}

// Start returns what a stream begins with: when to come back, spread over some seconds, and where to go on.
func (f EventStream) Start(w hub.Welcome) []byte {
	p := f.Close(hub.ReasonRestart, "")
	if w.Lost != nil { // in one event with the position, so that a client has both or neither
		return append(p, gapEvent(w.Lost, w.ID)...)
	}
	return append(append(append(p, "id: "...), w.ID...), "\n\n"...)
}

// Gap returns an event of type gap.
func (EventStream) Gap(channels []string) []byte { return gapEvent(channels, "") }

func gapEvent(channels []string, id string) []byte {
	p := []byte("event: gap\n")
	if id != "" {
		p = append(append(append(p, "id: "...), id...), '\n')
	}
	return append(appendGap(append(p, "data: "...), channels, id), "\n\n"...)
}

// Ping returns a comment.
func (EventStream) Ping() []byte { return comment }

// Close returns a time to come back: 1 to 5 seconds, so that not all do at once.
func (EventStream) Close(hub.Reason, string) []byte {
	return append(strconv.AppendInt([]byte("retry: "), 1000+rand.Int64N(4001), 10), "\n\n"...)
}

// V1Stream is broadcast.v1 as an event stream: the data of each event, which has no type, is a frame of it, and the
// event's ID that of the last message. A page sees the heartbeat too.
type V1Stream struct{ EventStream }

var heartbeatEvent = []byte("data: []\n\n")

// Append appends one event with all messages, in one line. JSON may have been published in several; what ends them is
// white space, for a string has none of it.
func (V1Stream) Append(dst []byte, run []*hub.Message) []byte {
	dst = append(run[len(run)-1].AppendID(append(dst, "id: "...)), "\ndata: ["...)
	start := len(dst)
	dst = appendMessages(dst, run)
	oneLine(dst[start:], '\r')
	oneLine(dst[start:], '\n')
	return append(dst, "]\n\n"...)
}

func oneLine(p []byte, end byte) {
	for i := next(p, 0, end); i < len(p); i = next(p, i+1, end) {
		p[i] = ' '
	}
}

// Start returns what a stream begins with.
func (f V1Stream) Start(h Hello) []byte {
	p := append(append(append(f.Close(hub.ReasonRestart, ""), "id: "...), h.Welcome.ID...), "\ndata: ["...)
	return append(h.append(p), "]\n\n"...)
}

// Gap returns an event with a gap.
func (V1Stream) Gap(channels []string) []byte {
	return append(appendGap([]byte(`data: [{"gap":`), channels, ""), "}]\n\n"...)
}

// Ping returns an event without messages.
func (V1Stream) Ping() []byte { return heartbeatEvent }
