package packet

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/internal/frame"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// events are messages, and what the npm package would be told to emit for clients to get the same.
var events = []struct {
	name string
	out  Outgoing
	emit object // "type" is 2 without saying
}{
	{"JSON", Outgoing{Event: "update", Data: []byte(`{"price":3}`), Kind: hub.JSON}, object{"data": []any{"update", object{"price": 3}}}},
	{"text", Outgoing{Event: "update", Data: []byte("é \"\\\n\x01 "), Kind: hub.Text}, object{"data": []any{"update", "é \"\\\n\x01 "}}},
	{"binary", Outgoing{Event: "update", Data: []byte{1, 2, 0xff}, Kind: hub.Binary}, object{"data": []any{"update", blob([]byte{1, 2, 0xff})}}},
	{"no event", Outgoing{Data: []byte("hello"), Kind: hub.Text}, object{"data": []any{"message", "hello"}}},
	{"no arguments", Outgoing{Event: "update", Data: []byte("null"), Kind: hub.JSON, Args: []byte("[]")}, object{"data": []any{"update"}}},
	{"arguments", Outgoing{Event: "update", Args: []byte(`[1,"2",[null]]`)}, object{"data": []any{"update", 1, "2", []any{nil}}}},
	{"attachments", Outgoing{Event: "update", Args: []byte(`[{"a":{"_placeholder":true,"num":0}},{"_placeholder":true,"num":1}]`),
		Attachments: [][]byte{{1}, []byte("22")}}, object{"data": []any{"update", object{"a": blob([]byte{1})}, blob([]byte("22"))}}},
	{"ten attachments", Outgoing{Event: "x", Args: []byte("[" + placeholders(10)[1:] + "]"),
		Attachments: [][]byte{{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}, {8}, {9}}}, object{"data": append([]any{"x"}, binaries(10)...)}},
	{"room of the main namespace", Outgoing{Channel: "room:7", Event: "a", Data: []byte("1"), Kind: hub.JSON}, object{"data": []any{"a", 1}}},
	{"namespace", Outgoing{Channel: "/chat", Event: "a", Data: []byte("1"), Kind: hub.JSON}, object{"nsp": "/chat", "data": []any{"a", 1}}},
	{"room of a namespace", Outgoing{Channel: "/chat,room,7", Event: "a", Data: []byte("x"), Kind: hub.Binary},
		object{"nsp": "/chat", "data": []any{"a", blob([]byte("x"))}}},
	{"offset", Outgoing{Event: "update", Data: []byte(`{"price":3}`), Kind: hub.JSON, Offset: []byte("3FGG6ALG-42")},
		object{"data": []any{"update", object{"price": 3}, "3FGG6ALG-42"}}},
	{"offset of no arguments", Outgoing{Event: "update", Args: []byte("[]"), Offset: []byte("e-1")}, object{"data": []any{"update", "e-1"}}},
	{"offset of binary", Outgoing{Channel: "/c", Event: "a", Data: []byte("x"), Kind: hub.Binary, Offset: []byte("e-1")},
		object{"nsp": "/c", "data": []any{"a", blob([]byte("x")), "e-1"}}},
	{"event that is escaped", Outgoing{Event: `"\é`, Data: []byte("0"), Kind: hub.JSON}, object{"data": []any{`"\é`, 0}}},
}

// messages returns the messages in WebSocket frames, text without the type of the Engine.IO packet, as the script has them.
func messages(t testing.TB, frames []byte) (list []any) {
	for len(frames) > 0 {
		op, data, rest, ok := cutFrame(frames)
		if !ok {
			t.Fatalf("%q is not a frame", frames)
		}
		if frames = rest; op == frame.Binary {
			list = append(list, blob(data))
			continue
		}
		if op != frame.Text || len(data) == 0 || data[0] != byte(EngineMessage) {
			t.Fatalf("the frame %v has %q", op, data)
		}
		list = append(list, string(data[1:]))
	}
	return list
}

// TestEncode: an event is byte for byte what the npm package sends.
func TestEncode(t *testing.T) {
	questions := make([]object, len(events))
	for i, c := range events {
		packet := object{"type": 2, "nsp": "/"}
		for k, v := range c.emit {
			packet[k] = v
		}
		questions[i] = object{"encode": packet}
	}
	list := recorded(t, "encode", questions)
	for i, c := range events {
		t.Run(c.name, func(t *testing.T) {
			got := messages(t, AppendEvent(nil, &c.out))
			if want := list[i]["messages"]; !reflect.DeepEqual(any(got), want) {
				t.Errorf("%v, want %v", got, want)
			}
			if packets, err := decode(t, got); err != nil || len(packets) != 1 {
				t.Errorf("we parse it as %v, %v", packets, err)
			}
		})
	}
}

// TestAppendEventHeader: the frame's header is right where escapes make the packet longer than its estimate, at every length
// near those where the header grows, and what was appended before stays.
func TestAppendEventHeader(t *testing.T) {
	for _, around := range []int{126, 1 << 16} {
		for n := around - 40; n < around+10; n++ {
			for _, text := range []string{strings.Repeat("x", n), strings.Repeat("x", n-1) + "\n", strings.Repeat(`"`, n/2), strings.Repeat("\x01", n/6)} {
				got := AppendEvent([]byte("before"), &Outgoing{Event: "e", Data: []byte(text), Kind: hub.Text})
				op, data, rest, ok := cutFrame(bytes.TrimPrefix(got, []byte("before")))
				if want := `42["e",`; !ok || op != frame.Text || len(rest) > 0 || !bytes.HasPrefix(data, []byte(want)) {
					t.Fatalf("%d: %q is not one frame", n, got)
				}
				p, err := Parse(data[1:])
				if err != nil {
					t.Fatal(err)
				}
				if c, err := p.Content(nil); err != nil || string(c.Data) != text || c.Kind != hub.Text {
					t.Fatalf("%d: %q, %v", n, c.Data, err)
				}
			}
		}
	}
}

// TestAppendEventReserved: clients never get an event that they would throw for.
func TestAppendEventReserved(t *testing.T) {
	for _, name := range []string{"connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"} {
		if got := AppendEvent(nil, &Outgoing{Event: name, Data: []byte("1"), Kind: hub.JSON}); len(got) > 0 {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// TestAppendEventAllocates: it allocates nothing, whatever it appends.
func TestAppendEventAllocates(t *testing.T) {
	dst := make([]byte, 0, 1<<20)
	for _, c := range events {
		if n := testing.AllocsPerRun(10, func() { dst = AppendEvent(dst[:0], &c.out) }); n > 0 {
			t.Errorf("%s: %v allocations", c.name, n)
		}
	}
}

// payloads are bodies of POSTs.
var payloads = []struct {
	name, body string
	stricter   bool // the npm package accepts it
}{
	{"message", "4hello", false},
	{"messages", "4test1\x1e4test2\x1e4test3", false},
	{"binary", "4hello\x1ebAQIDBA==", false},
	{"no binary", "b", false},
	{"types", "1\x1e2\x1e2probe\x1e3\x1e3probe\x1e4\x1e5\x1e6", false},
	{"Unicode", "4\u20ac\x1e4\U0001f600", false},
	{"nothing", "", false},
	{"separator", "\x1e", false},
	{"separator first", "\x1e4a", false},
	{"separator last", "4a\x1e", false},
	{"unknown type", "abc", false},
	{"unknown type second", "4a\x1e7", false},
	{"open", "0{}", true},
	{"base64 with a line break", "bAQID\nBA==", true},
	{"base64 without padding", "bAQIDBA", true},
	{"base64 for URLs", "b__8=", true},
	{"base64 with bits too many", "bAQIDBB==", true},
	{"not base64", "b!", true},
	{"base64 with a packet after it", "bAQID4a", true},
}

var typeNames = map[EngineType]string{EngineOpen: "open", EngineClose: "close", EnginePing: "ping", EnginePong: "pong",
	EngineMessage: "message", EngineUpgrade: "upgrade", EngineNoop: "noop"}

// TestPayload: a payload is to us what it is to the npm package.
func TestPayload(t *testing.T) {
	questions := make([]object, len(payloads))
	for i, c := range payloads {
		questions[i] = object{"payload": c.body}
	}
	list := recorded(t, "payload", questions)
	for i, c := range payloads {
		t.Run(c.name, func(t *testing.T) {
			var got []any
			failed := false
			for p, err := range Payload([]byte(c.body)) {
				if failed {
					t.Fatal("it goes on after an error")
				}
				if err != nil {
					failed = true
					got = append(got, object{"type": "error", "data": "parser error"})
					continue
				}
				o := object{"type": typeNames[p.Type]}
				if p.Binary {
					o["data"] = blob(p.Data)
				} else if len(p.Data) > 0 {
					o["data"] = string(p.Data)
				}
				got = append(got, o)
			}
			if c.stricter {
				if !failed {
					t.Fatalf("%v is accepted", got)
				}
			} else if want := list[i]["packets"]; !reflect.DeepEqual(any(got), want) {
				t.Errorf("%v, want %v", got, want)
			}
		})
	}
	for _, err := range Payload([]byte("4\xff")) {
		if err == nil || err.Code != frame.InvalidData {
			t.Errorf("not UTF-8: %v", err)
		}
	}
}

// TestParseFrame: the rows of a WebSocket.
func TestParseFrame(t *testing.T) {
	for _, c := range []struct {
		op   frame.Opcode
		data string
		want EngineType // 0 if it closes the client
	}{
		{frame.Text, "", 0}, {frame.Text, "0{}", 0}, {frame.Text, "7", 0}, {frame.Text, "9", 0}, {frame.Text, "bAQID", 0}, {frame.Text, "abc", 0},
		{frame.Text, "1", EngineClose}, {frame.Text, "2probe", EnginePing}, {frame.Text, "3", EnginePong}, {frame.Text, "4x", EngineMessage},
		{frame.Text, "5", EngineUpgrade}, {frame.Text, "6", EngineNoop},
		{frame.Binary, "", EngineMessage}, {frame.Binary, "\x00", EngineMessage},
	} {
		p, err := ParseFrame(c.op, []byte(c.data))
		if err != nil && (c.want != 0 || err.Code != frame.ProtocolError) || err == nil && p.Type != c.want {
			t.Errorf("%q: %v, %v", c.data, p, err)
		}
	}
}

// TestAppendPayload: frames become the payload that the npm package makes, whole or cut at every size, and cut between packets.
func TestAppendPayload(t *testing.T) {
	frames := frame.TextFrame("4a")
	packets := []any{object{"type": "message", "data": "a"}}
	add := func(data string) {
		frames = append(frames, AppendEvent(nil, &Outgoing{Event: "e", Data: []byte(data), Kind: hub.Binary})...)
		packets = append(packets, object{"type": "message", "data": `51-["e",` + placeholder + `]`}, object{"type": "message", "data": blob([]byte(data))})
	}
	add("")
	add("\x01\x02")
	add(strings.Repeat("x", 200))
	add(strings.Repeat("x", 300))
	frames = append(frames, frame.TextFrame("2")...)
	packets = append(packets, object{"type": "ping"})
	want := recorded(t, "join", []object{{"join": packets}})[0]["payload"].(string)
	for _, max := range []int{0, 1, 10, 60, 100, 150, 1 << 10, len(want) - 1, len(want)} {
		var joined []byte
		for left := frames; len(left) > 0; {
			var p []byte
			p, left = AppendPayload([]byte("before"), left, max)
			p = bytes.TrimPrefix(p, []byte("before"))
			if len(p) == 0 || len(p) > max && bytes.IndexByte(p, Separator) >= 0 {
				t.Fatalf("max %d: %q", max, p)
			}
			if joined != nil {
				joined = append(joined, Separator)
			}
			joined = append(joined, p...)
		}
		if string(joined) != want {
			t.Errorf("max %d: %.300q, want %.300q", max, joined, want)
		}
	}
}

// TestAppendPayloadIncomplete: a frame whose end has not come is left.
func TestAppendPayloadIncomplete(t *testing.T) {
	frames := append(frame.TextFrame("4a"), AppendEvent(nil, &Outgoing{Event: "e", Data: []byte(strings.Repeat("x", 200)), Kind: hub.Binary})...)
	want, _ := AppendPayload(nil, frames, 1<<20)
	for i := range frames {
		p, left := AppendPayload(nil, frames[:i], 1<<20)
		rest, left := AppendPayload(nil, append(bytes.Clone(left), frames[i:]...), 1<<20)
		if len(p) > 0 {
			p = append(p, Separator)
		}
		if p = append(p, rest...); !bytes.Equal(p, want) || len(left) > 0 {
			t.Fatalf("cut at %d: %q, %q left", i, p, left)
		}
	}
}

// TestAppendPayloadClose: a close frame is the last packet, whatever comes after it.
func TestAppendPayloadClose(t *testing.T) {
	frames := append(frame.TextFrame("4a"), frame.CloseFrame(frame.GoingAway, "restart")...)
	p, left := AppendPayload(nil, append(frames, frame.TextFrame("4b")...), 100)
	if string(p) != "4a\x1e1" || len(left) > 0 {
		t.Errorf("%q, %q left", p, left)
	}
	if p, left := AppendPayload(nil, frame.PingFrame, 100); len(p) > 0 || len(left) > 0 {
		t.Errorf("%q, %q left: polling has no frames", p, left)
	}
}
