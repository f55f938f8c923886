package v1

import (
	"bytes"
	"compress/flate"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub/hubtest"
)

// read returns the payload of the one frame that p is.
func read(t *testing.T, p []byte) []byte {
	t.Helper()
	h, err := ws.ReadHeader(bytes.NewReader(p))
	payload := p[max(0, len(p)-int(h.Length)):]
	if err != nil || h.OpCode != ws.OpText || !h.Fin || ws.HeaderSize(h)+len(payload) != len(p) {
		t.Fatalf("%q: %+v, %v", p, h, err)
	}
	if h.Rsv1() {
		tail := []byte{0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff}
		payload, err = io.ReadAll(flate.NewReader(io.MultiReader(bytes.NewReader(payload), bytes.NewReader(tail))))
		if err != nil {
			t.Fatal(err)
		}
	}
	return payload
}

type v1Object struct {
	ID       string
	Channel  string
	Event    string
	Data     json.RawMessage
	Encoding string
	Hello    *struct {
		Connection string
		Channels   []string
		ID         string
		Resumed    bool
		Heartbeat  int
	}
	Gap *struct {
		Channels []string
		ID       string
	}
	Ack *struct {
		Ref     any
		ID      string
		Channel string
		Resumed bool
	}
	Subscribed, Unsubscribed *struct{ Channel, ID string }
	Error                    *struct {
		Ref           any
		Code, Message string
	}
}

func objects(t *testing.T, p []byte) (os []v1Object) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(read(t, p)))
	d.DisallowUnknownFields()
	if err := d.Decode(&os); err != nil {
		t.Fatalf("%q: %v", p, err)
	}
	return os
}

// FuzzFormat: whatever is published, frames are frames, and JSON that says it.
func FuzzFormat(f *testing.F) {
	f.Add("a", "update", uint8(0), []byte("one\n\"\\\x00\x1f\x7f\u2028\U0001f600"))
	f.Add("a", "", uint8(1), []byte{0, '\n', 255})
	f.Add("ä\"", "\\", uint8(2), []byte("{\n\"a\":\t\"\xc2\x85\"}"))
	f.Add("a", "", uint8(0), bytes.Repeat([]byte("x"), 300))
	f.Add("a", "", uint8(0), bytes.Repeat([]byte("x"), 70_000))
	f.Fuzz(func(t *testing.T, channel, event string, kind uint8, data []byte) {
		m := hubtest.Message(channel, event, kind, data)
		if m == nil {
			return
		}
		for _, format := range []Format{{}, {MinDeflate: 1}} {
			prefix := []byte("before")
			p := format.Append(prefix, []*hub.Message{m, m})
			if !bytes.HasPrefix(p, prefix) {
				t.Fatalf("%q", p)
			}
			os := objects(t, p[len(prefix):])
			if len(os) != 2 {
				t.Fatalf("%+v", os)
			}
			w := hub.Welcome{ID: "e-6", Gaps: []string{channel}}
			joined := objects(t, format.joined(json.RawMessage("3"), channel, w, []*hub.Message{m}))
			if a := joined[0].Ack; len(joined) != 3 || a.Ref != 3. || a.Channel != channel || a.ID != "e-6" || a.Resumed || joined[1].Gap.Channels[0] != channel {
				t.Fatalf("%+v", joined)
			}
			subscribed := objects(t, format.Subscribed(channel, w, []*hub.Message{m}))
			if a := subscribed[0].Subscribed; len(subscribed) != 3 || a.Channel != channel || a.ID != "e-6" || subscribed[1].Gap.Channels[0] != channel {
				t.Fatalf("%+v", subscribed)
			}
			if os := objects(t, format.Unsubscribed(channel)); len(os) != 1 || os[0].Unsubscribed.Channel != channel {
				t.Fatalf("%+v", os)
			}
			for _, o := range append(os, joined[2], subscribed[2]) {
				var text string
				isText := json.Unmarshal(o.Data, &text) == nil
				good := false
				switch m.Kind {
				case hub.Text:
					good = isText && text == string(data)
				case hub.Binary:
					raw, err := base64.StdEncoding.DecodeString(text)
					good = isText && err == nil && bytes.Equal(raw, data) && o.Encoding == "base64"
				case hub.JSON:
					var a, b bytes.Buffer
					good = json.Compact(&a, data) == nil && json.Compact(&b, o.Data) == nil && a.String() == b.String()
				}
				if !good || o.ID != "-7" || o.Channel != channel || o.Event != event {
					t.Fatalf("%+v", o)
				}
			}
			if os := objects(t, format.Gap([]string{channel})); os[0].Gap.Channels[0] != channel {
				t.Fatalf("%+v", os)
			}
			if os := objects(t, format.reply(appendError(appendAck(nil, nil, "e-1"), json.RawMessage(`"r"`), "code", channel))); len(os) != 2 ||
				os[0].Ack.ID != "e-1" || os[1].Error.Ref != "r" || os[1].Error.Message != channel {
				t.Fatalf("%+v", os)
			}
		}
	})
}

func TestHello(t *testing.T) {
	var format Format
	os := objects(t, format.hello(hello{"c12", []string{"a", "b"}, hub.Welcome{ID: "e-6", Resumed: true}, 25 * time.Second, time.Time{}, nil}))
	if h := os[0].Hello; len(os) != 1 || h.Connection != "c12" || fmt.Sprint(h.Channels) != "[a b]" || h.ID != "e-6" || !h.Resumed || h.Heartbeat != 25 {
		t.Errorf("%+v", os)
	}
	os = objects(t, format.hello(hello{"c12", []string{"a"}, hub.Welcome{ID: "e-6", Gaps: []string{"a"}}, 25 * time.Second, time.Time{}, appendError(nil, nil, "forbidden", "b")}))
	if len(os) != 3 || os[0].Hello.Resumed || fmt.Sprint(*os[1].Gap) != "{[a] e-6}" || os[2].Error.Message != "b" {
		t.Errorf("%+v", os)
	}
	if os := objects(t, format.reply(appendAck(nil, json.RawMessage("1"), ""))); os[0].Ack.Ref != 1. {
		t.Errorf("%+v", os)
	}
	if p := format.Ping(); string(p[:2]) != "\x89\x00" || string(read(t, p[2:])) != "[]" {
		t.Errorf("%q", p)
	}
}

// TestSubscribedLate: a client that has had later messages of other channels ends with the position after those, whatever it is sent of the
// channel: one that reconnects gets nothing twice.
func TestSubscribedLate(t *testing.T) {
	m := &hub.Message{Channel: "room", Seq: 7, Data: []byte("x")}
	late, now := hub.Welcome{ID: "-6", Now: "-9"}, hub.Welcome{ID: "-6", Now: "-7"}
	const first = `[{"subscribed":{"channel":"room","id":"-6"}},{"id":"-7","channel":"room","data":"x"}`
	for _, c := range []struct {
		got  []byte
		want string
	}{
		{read(t, Format{}.Subscribed("room", late, []*hub.Message{m})), first + `,{"subscribed":{"channel":"room","id":"-9"}}]`},
		{read(t, Format{}.Subscribed("room", now, []*hub.Message{m})), first + `]`},
		{StreamFormat{}.Subscribed("room", late, []*hub.Message{m}), "id: -9\ndata: " + first + `,{"subscribed":{"channel":"room","id":"-9"}}]` + "\n\n"},
	} {
		if string(c.got) != c.want {
			t.Errorf("%s, not %s", c.got, c.want)
		}
	}
}
