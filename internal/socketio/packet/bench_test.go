package packet_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol/raw"
	v1 "github.com/caddy-broadcast/caddy-broadcast/internal/protocol/v1"
	"github.com/caddy-broadcast/caddy-broadcast/internal/socketio/packet"
)

// data is JSON of 91 bytes, as an update of a page has it.
var data = []byte(`{"symbol":"ACME","price":123.45,"volume":67890,"time":"2026-11-26T00:00:00Z","change":-0.5}`)

// run returns n messages.
func run(n int, kind hub.Kind, data []byte) (list []*hub.Message) {
	for i := range n {
		list = append(list, &hub.Message{Channel: "default", Event: "update", Data: data, Kind: kind, Seq: uint64(i + 1)})
	}
	return list
}

// appendEvents appends a run of messages, as a hub.Format does.
func appendEvents(dst []byte, run []*hub.Message, offsets bool) []byte {
	var id [64]byte
	var e packet.Outgoing
	for _, m := range run {
		e.Channel, e.Event, e.Data, e.Kind = m.Channel, m.Event, m.Data, m.Kind
		if offsets {
			e.Offset = m.AppendID(id[:0])
		}
		dst = packet.AppendEvent(dst, &e)
	}
	return dst
}

// BenchmarkAppend compares what a message costs to encode with what it costs in the other protocols.
func BenchmarkAppend(b *testing.B) {
	for _, format := range []struct {
		name   string
		append func([]byte, []*hub.Message) []byte
	}{
		{"raw", raw.Format{}.Append},
		{"v1", v1.Format{}.Append},
		{"socketio", func(dst []byte, run []*hub.Message) []byte { return appendEvents(dst, run, false) }},
		{"socketio with offsets", func(dst []byte, run []*hub.Message) []byte { return appendEvents(dst, run, true) }},
	} {
		for _, c := range []struct {
			name string
			run  []*hub.Message
		}{
			{"JSON", run(1, hub.JSON, data)}, {"64 of JSON", run(64, hub.JSON, data)}, {"text", run(1, hub.Text, data)},
			{"letters", run(1, hub.Text, []byte(strings.Repeat("x", 91)))}, {"binary", run(1, hub.Binary, data)},
		} {
			b.Run(fmt.Sprintf("%s/%s", format.name, c.name), func(b *testing.B) {
				b.ReportAllocs()
				var dst []byte
				for b.Loop() {
					dst = format.append(dst[:0], c.run)
				}
				n := float64(len(c.run))
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/message")
				b.ReportMetric(float64(len(dst))/n, "bytes/message")
			})
		}
	}
}

// BenchmarkParse parses an event, and takes its content.
func BenchmarkParse(b *testing.B) {
	for _, c := range []struct {
		name, text  string
		attachments [][]byte
	}{
		{"JSON", `2["update",` + string(data) + `]`, nil},
		{"text with an ID", `217["update","hello, world"]`, nil},
		{"attachment", `51-["update",{"_placeholder":true,"num":0}]`, [][]byte{data}},
		{"64 KiB", `2["update",["` + strings.Repeat("x", 64<<10) + `"]]`, nil},
		{"64 KiB of escapes", `2["update",["` + strings.Repeat(`\n`, 32<<10) + `"]]`, nil},
		{"64 KiB of brackets", `2["update",[` + strings.Repeat("[],", 21<<10) + `1]]`, nil},
		{"64 KiB of keys", `51-["update",{` + strings.Repeat(`"\u006eum":1,`, 5<<10) + `"a":{"_placeholder":true,"num":0}}]`, [][]byte{data}},
		{"64 KiB of digits", `2[` + strings.Repeat("1", 64<<10) + `]`, nil},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			text := []byte(c.text)
			for b.Loop() {
				p, err := packet.Parse(text)
				if err != nil {
					b.Fatal(err)
				}
				p.Content(c.attachments)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(text)), "ns/byte")
		})
	}
}

// BenchmarkPayload makes the answer to a GET of 64 messages, and splits the body of a POST of as many.
func BenchmarkPayload(b *testing.B) {
	frames := appendEvents(nil, run(64, hub.JSON, data), true)
	body, _ := packet.AppendPayload(nil, frames, 1<<20)
	b.Run("append", func(b *testing.B) {
		b.ReportAllocs()
		var dst []byte
		for b.Loop() {
			dst, _ = packet.AppendPayload(dst[:0], frames, 1<<20)
		}
	})
	b.Run("split", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			for _, err := range packet.Payload(body) {
				if err != nil {
					b.Fatal(err)
				}
			}
		}
	})
	b.Run("split many", func(b *testing.B) { // what costs most a byte
		b.ReportAllocs()
		body := []byte(strings.Repeat("3\x1e", 32<<10) + "3")
		for b.Loop() {
			for range packet.Payload(body) {
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(body)), "ns/byte")
	})
}
