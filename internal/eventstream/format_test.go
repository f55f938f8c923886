package eventstream_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/tmaxmax/go-sse"

	"github.com/caddy-broadcast/caddy-broadcast/internal/eventstream"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub/hubtest"
)

// stream is a stream of a message three times, a ping, a gap and an end.
func stream(w hub.Welcome, m *hub.Message) []byte {
	var format eventstream.Format
	p := format.Append(format.Start(w), []*hub.Message{m, m})
	p = append(format.Append(append(p, format.Ping()...), []*hub.Message{m}), format.Gap(w.Gaps)...)
	return append(p, format.Close(hub.ReasonRestart, "")...)
}

// events reads a stream with another's parser.
func events(t *testing.T, p []byte) (got []sse.Event) {
	t.Helper()
	for e, err := range sse.Read(bytes.NewReader(p), &sse.ReadConfig{MaxEventSize: 1 << 20}) {
		if err != nil {
			t.Fatalf("%q: %v", p, err)
		}
		got = append(got, e)
	}
	return got
}

// FuzzFormat: another's parser reads from a stream just what was published.
func FuzzFormat(f *testing.F) {
	f.Add("a", "update", uint8(0), []byte("one\ntwo\r\nthree\rfour\n\n"))
	f.Add("a", "", uint8(0), []byte(""))
	f.Add("a", "", uint8(0), []byte("\r\r\n\n\r"))
	f.Add("a", "event: x", uint8(0), []byte(" id: 3\nretry: 1\n: comment"))
	f.Add("a", "", uint8(1), []byte{0, '\n', 255})
	f.Add("ä\"", "gap", uint8(2), []byte("{\n\"a\":\t\"\xc2\x85\"}"))
	f.Fuzz(func(t *testing.T, channel, event string, kind uint8, data []byte) {
		m := hubtest.Message(channel, event, kind, data)
		if m == nil {
			return
		}
		w := hub.Welcome{ID: "e-6"}
		if len(data)%2 == 1 {
			w.Gaps = []string{channel, "b"}
		}
		p := stream(w, m)
		got := events(t, p)
		want := strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(string(data))
		if m.Kind == hub.Binary {
			want = base64.StdEncoding.EncodeToString(data)
		}
		if w.Gaps == nil { // a block with an ID alone is no event to a browser; this parser tells of it
			if len(got) == 0 || got[0] != (sse.Event{LastEventID: "e-6"}) {
				t.Fatalf("%q: %+v", p, got)
			}
			got = got[1:]
		}
		n := 0
		gap := func(id string) {
			var g struct {
				Channels []string
				ID       string
			}
			if n == len(got) || got[n].Type != "gap" || json.Unmarshal([]byte(got[n].Data), &g) != nil || fmt.Sprint(g.Channels) != fmt.Sprint(w.Gaps) || g.ID != id {
				t.Fatalf("%q: %+v", p, got)
			}
			n++
		}
		if w.Gaps != nil {
			gap("e-6")
		}
		for range 3 {
			if n == len(got) || got[n] != (sse.Event{LastEventID: "-7", Type: event, Data: want}) {
				t.Fatalf("%q at %d: %+v, not %q", p, n, got, want)
			}
			n++
		}
		gap("")
		if n != len(got) {
			t.Fatalf("%q: %+v", p, got[n:])
		}
	})
}
