package eventstream

import (
	"bytes"
	"encoding/base64"
	"math/rand/v2"
	"strconv"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol"
)

// Format implements hub.Format for text/event-stream (HTML Standard, section 9.2): a message is an event with its ID, of
// the type that its publisher named. Binary data is in base64, because an event stream is UTF-8.
type Format struct{}

// comment keeps proxies from closing a quiet stream. Pages do not see it.
var comment = []byte(":\n\n")

// Append appends an event for each message.
func (Format) Append(dst []byte, run []*hub.Message) []byte {
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

// appendLines appends a data field for each line. Whatever ends a line of an event stream (CR, LF or both) ends one of the
// data. Each CR and LF is searched for once, so that the time grows only with the length.
func appendLines(dst, data []byte) []byte {
	from, cr, lf := 0, nextIndex(data, 0, '\r'), nextIndex(data, 0, '\n')
	for {
		end := min(cr, lf)
		dst = append(append(append(dst, "data: "...), data[from:end]...), '\n')
		if end == len(data) {
			return dst
		}
		from = end + 1
		if end == cr && lf == from && lf < len(data) {
			from++ // CR and LF together end one line
		}
		if cr < from {
			cr = nextIndex(data, from, '\r')
		}
		if lf < from {
			lf = nextIndex(data, from, '\n')
		}
	}
}

// nextIndex returns where a byte is next in data, or the length of data.
func nextIndex(data []byte, from int, b byte) int {
	if i := bytes.IndexByte(data[from:], b); i >= 0 {
		return from + i
	}
	return len(data)
}

// Start returns what a stream starts with: when to reconnect, and where to resume.
func (Format) Start(w hub.Welcome) []byte {
	p := Retry()
	if w.Gaps != nil { // in one event with the position, so that a client has both or neither
		return append(p, gapEvent(w.Gaps, w.ID)...)
	}
	// An event without data is not dispatched, but sets the position (section 9.2.6).
	return append(append(append(p, "id: "...), w.ID...), "\n\n"...)
}

// Gap returns an event of type gap.
func (Format) Gap(channels []string) []byte { return gapEvent(channels, "") }

// GapAt returns an event of type gap, which sets the position.
func (Format) GapAt(channels []string, id string) []byte { return gapEvent(channels, id) }

// gapEvent returns the event. It has an ID only if that is known: an event without one leaves the client's position as it is.
func gapEvent(channels []string, id string) []byte {
	p := []byte("event: gap\n")
	if id != "" {
		p = append(append(append(p, "id: "...), id...), '\n')
	}
	return append(protocol.AppendGap(append(p, "data: "...), channels, id), "\n\n"...)
}

// Notice returns an event of the notice's type. It has no ID, because it is not resumed.
func (Format) Notice(name, _ string, data []byte) []byte {
	p := append(append([]byte("event: "), name...), "\ndata: "...)
	return append(append(p, data...), "\n\n"...)
}

// Ping returns a comment.
func (Format) Ping() []byte { return comment }

// Close returns when to reconnect: an event stream has no word for a reason.
func (Format) Close(hub.Reason, string) []byte { return Retry() }

// Retry returns the field that tells a client when to reconnect: in 1 to 5 seconds, so that not all of them do at once.
func Retry() []byte {
	return append(strconv.AppendInt([]byte("retry: "), 1000+rand.Int64N(4001), 10), "\n\n"...)
}
