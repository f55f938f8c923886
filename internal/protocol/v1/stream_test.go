package v1

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/tmaxmax/go-sse"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub/hubtest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol"
)

// FuzzStreamFormat: another's parser reads from a stream just what a WebSocket gets.
func FuzzStreamFormat(f *testing.F) {
	f.Add("a", "update", uint8(0), []byte("one\n\"\\\x00\x1f\x7f\u2028\U0001f600"))
	f.Add("a", "", uint8(1), []byte{0, '\n', 255})
	f.Add("ä\"", "\\", uint8(2), []byte("{\r\n\"a\":\r\t\"\xc2\x85\"}\n"))
	f.Fuzz(func(t *testing.T, channel, event string, kind uint8, data []byte) {
		m := hubtest.Message(channel, event, kind, data)
		if m == nil {
			return
		}
		run := []*hub.Message{{Channel: "first", Seq: 6}, m}
		hello := hello{"c12", []string{channel}, hub.Welcome{ID: "e-6", Gaps: []string{channel}}, time.Second, time.Time{}, nil}
		var stream StreamFormat
		var socket Format
		p := append(stream.Append(stream.start(hello), run), stream.Ping()...)
		p = append(append(p, stream.Gap([]string{channel})...), stream.Unsubscribed(channel)...)
		p = append(append(p, stream.Subscribed(channel, hub.Welcome{ID: "-7", Now: "-7"}, run)...), stream.Close(hub.ReasonRestart, "")...)
		p = append(p, stream.CloseCode(nil, 4403, channel)...)
		var got []sse.Event
		for e, err := range sse.Read(bytes.NewReader(p), &sse.ReadConfig{MaxEventSize: 1 << 20}) {
			if err != nil {
				t.Fatalf("%q: %v", p, err)
			}
			got = append(got, e)
		}
		want := [][]byte{read(t, socket.hello(hello)), read(t, socket.Append(nil, run)), []byte("[]"), read(t, socket.Gap([]string{channel})),
			read(t, socket.Unsubscribed(channel)), read(t, socket.Subscribed(channel, hub.Welcome{ID: "-7", Now: "-7"}, run)), closing(channel)}
		if len(got) != len(want) {
			t.Fatalf("%q: %+v", p, got)
		}
		for i, e := range got {
			var a, b bytes.Buffer
			id := "-7"
			if i == 0 {
				id = "e-6"
			}
			if json.Compact(&a, []byte(e.Data)) != nil || json.Compact(&b, want[i]) != nil || a.String() != b.String() || e.Type != "" || e.LastEventID != id {
				t.Fatalf("event %d is %+v, not %s", i, e, want[i])
			}
		}
	})
}

// closing is what a client is told that has to stay away.
func closing(reason string) []byte {
	return append(protocol.AppendString([]byte(`[{"close":{"code":4403,"reason":`), reason), "}}]"...)
}
