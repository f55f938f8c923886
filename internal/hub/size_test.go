package hub_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/eventstream"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol/raw"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol/v1"
)

// FuzzSize: no wire format makes more of a message than it counts for, and one of them makes about that much, but for
// CR and LF together, which count as two ends of a line.
func FuzzSize(f *testing.F) {
	h := hub.New(hub.Config{})
	f.Cleanup(func() { h.Close(hub.ReasonRestart, "", 0, 0) })
	for _, s := range []string{"", "plain", "\r", "\r\n", "\n\r", `"`, "\x00", "\r\"\x01ä"} {
		f.Add("a", "", uint8(hub.Text), []byte(strings.Repeat(s, 1000)))
	}
	f.Add(strings.Repeat(`"`, 255), strings.Repeat(`\`, 255), uint8(hub.JSON), []byte("[1\r\n\r,2\n]"))
	f.Add("a", "", uint8(hub.Binary), bytes.Repeat([]byte{0}, 1000))
	f.Fuzz(func(t *testing.T, channel, event string, kind uint8, data []byte) {
		m := &hub.Message{Channel: channel, Event: event, Kind: hub.Kind(kind), Data: data}
		if h.Publish(m) != nil {
			return
		}
		most := 0
		for _, format := range []hub.Format{
			raw.Format{}, raw.Format{MinDeflate: 1}, v1.Format{}, v1.Format{MinDeflate: 1}, eventstream.Format{}, v1.StreamFormat{},
		} {
			most = max(most, len(format.Append(nil, []*hub.Message{m})))
		}
		if m.Size() < most || m.Size() > most+1000+7*bytes.Count(data, []byte("\r\n")) {
			t.Fatalf("%d bytes, counts as %d", most, m.Size())
		}
	})
}

// TestReplayCountsWhatIsSent: what is replayed is bounded by what it is on the wire, not by what was published.
func TestReplayCountsWhatIsSent(t *testing.T) {
	const limit = 1 << 20
	for name, data := range map[string]string{"ends of lines": strings.Repeat("\r", limit/6), "control codes": strings.Repeat("\x00", limit/5)} {
		t.Run(name, func(t *testing.T) {
			h := hub.New(hub.Config{History: 10})
			first := &hub.Message{Channel: "a"}
			if err := h.Publish(first, &hub.Message{Channel: "a", Data: []byte(data)}); err != nil {
				t.Fatal(err)
			}
			o := &hub.ConnOptions{Format: eventstream.Format{}, MaxBacklog: limit, PingInterval: time.Second, WriteTimeout: time.Second}
			c, w, err := h.Connect(hub.Subscriber{Channels: []string{"a"}, LastID: first.ID()}, o)
			if err != nil || len(w.Gaps) != 1 {
				t.Errorf("%q: resumed: %+v, %v", data[:1], w, err)
			}
			c.Done()
			h.Close(hub.ReasonRestart, "", 0, 10*time.Second)
		})
	}
}
