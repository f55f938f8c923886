package packet

import (
	"cmp"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/frame"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// TestParse: what is in a packet. Which packets are valid is in TestDecode.
func TestParse(t *testing.T) {
	for _, c := range []struct {
		packet        string
		kind          Type
		namespace, id string
		attachments   int
		name, payload string
	}{
		{`0`, Connect, "/", "", 0, "", ""},
		{`0/chat`, Connect, "/chat", "", 0, "", ""},
		{`0/chat,`, Connect, "/chat", "", 0, "", ""},
		{`0/chat,{"a":1} `, Connect, "/chat", "", 0, "", `{"a":1}`},
		{`0/custom?x=1,`, Connect, "/custom?x=1", "", 0, "", ""},
		{`1`, Disconnect, "/", "", 0, "", ""},
		{`1/chat,`, Disconnect, "/chat", "", 0, "", ""},
		{`2["a",1]`, Event, "/", "", 0, "a", `["a",1]`},
		{`2/,["a"]`, Event, "/", "", 0, "a", `["a"]`},
		{`2/chat,007["a"]`, Event, "/chat", "007", 0, "a", `["a"]`},
		{`2["\u00e9\ud83d\ude00\""]`, Event, "/", "", 0, "é😀\"", `["\u00e9\ud83d\ude00\""]`},
		{`2[1]`, Event, "/", "", 0, "1", `[1]`},
		{`2[1.0]`, Event, "/", "", 0, "1", `[1.0]`},
		{`2[-0]`, Event, "/", "", 0, "0", `[-0]`},
		{`2[1e3]`, Event, "/", "", 0, "1000", `[1e3]`},
		{`2[1e21]`, Event, "/", "", 0, "1e+21", `[1e21]`},
		{`2[1e-7]`, Event, "/", "", 0, "1e-7", `[1e-7]`},
		{`51-/chat,7["a",{"_placeholder":true,"num":0}]`, BinaryEvent, "/chat", "7", 1, "a", `["a",{"_placeholder":true,"num":0}]`},
		{`3/chat,7[]`, Ack, "/chat", "7", 0, "", `[]`},
	} {
		p, err := Parse([]byte(c.packet))
		if err != nil || p.Rejected != nil {
			t.Errorf("%s: %v, %v", c.packet, err, p.Rejected)
		}
		if p.Type != c.kind || p.Namespace != c.namespace || string(p.ID) != c.id || p.Attachments != c.attachments || p.Name != c.name || string(p.Payload) != c.payload {
			t.Errorf("%s: %+v", c.packet, p)
		}
		if (p.ID == nil) != (c.id == "") {
			t.Errorf("%s: whether it has an ID is wrong", c.packet)
		}
	}
}

// TestParseCloses: clients are closed with a code that says why.
func TestParseCloses(t *testing.T) {
	for _, c := range []struct {
		name, packet string
		code         frame.Code
	}{
		{"nothing", "", frame.ProtocolError},
		{"not UTF-8", "2[\"\xff\"]", frame.InvalidData},
		{"namespace of 256 bytes", "0/" + strings.Repeat("a", 255), frame.ProtocolError},
		{"namespace with a control character", "0/a\nb,", frame.ProtocolError},
		{"many attachments", "5" + strings.Repeat("9", 1000) + `-["a"]`, frame.ProtocolError},
		{"very deep", "2" + strings.Repeat("[", 1e6), frame.ProtocolError},
		{"very deep, and closed", `2["a",` + strings.Repeat(`{"a":`, 1e5) + "1" + strings.Repeat("}", 1e5) + "]", frame.ProtocolError},
		{"very deep payload of CONNECT", "0" + strings.Repeat(`{"a":`, 1e5), frame.ProtocolError},
		{"long ID", "2" + strings.Repeat("1", 1e6), frame.ProtocolError},
	} {
		if _, err := Parse([]byte(c.packet)); err == nil || err.Code != c.code {
			t.Errorf("%s: %v, want %d", c.name, err, c.code)
		}
	}
	if _, err := Parse([]byte("0/" + strings.Repeat("a", 254))); err != nil {
		t.Error(err)
	}
}

// TestParseRejects: an event that nobody may get, but pages send, leaves its client connected. The packet has what the ack
// needs.
func TestParseRejects(t *testing.T) {
	for _, c := range []struct{ name, packet string }{
		{"empty name", `27[""]`},
		{"long name", `27["` + strings.Repeat("a", 256) + `"]`},
		{"control character in the name", `27["a\u0000"]`},
		{"half of a pair in the name", `27["\ud800"]`},
		{"half of a pair in an argument", `27["a",{"b":"\udead"}]`},
		{"half of a pair in a key", `27["a",{"\udead":1}]`},
		{"number that is too large for a name", `27[1e999]`},
	} {
		p, err := Parse([]byte(c.packet))
		if err != nil || p.Rejected == nil || string(p.ID) != "7" {
			t.Errorf("%s: %v, %+v", c.name, err, p)
		}
		if _, err := p.Content(nil); err == nil {
			t.Errorf("%s: has content", c.name)
		}
	}
	p, _ := Parse([]byte(`51-["a",` + placeholder + `]`))
	if _, err := p.Content(nil); !errors.Is(err, errMissing) {
		t.Errorf("without its attachments: %v", err)
	}
}

// TestCredentials: what is not as the protocol has it counts as missing.
func TestCredentials(t *testing.T) {
	for _, c := range []struct{ packet, pid, offset string }{
		{`0`, "", ""},
		{`0{}`, "", ""},
		{`0{ "pid" : "p" , "offset" : "o" }`, "p", "o"},
		{`0/chat,{"token":{"pid":"x"},"offset":"e-1","pid":"p\u0041"}`, "pA", "e-1"},
		{`0{"pid":"p"}`, "p", ""},
		{`0{"pid":1,"offset":["o"]}`, "", ""},
		{`0{"PID":"p","Offset":"o"}`, "", ""},
		{`0{"pid":"p","pid":null}`, "", ""},
		{`0{"pid":"p","pid":"q"}`, "q", ""},
		{`0{"pid":"` + strings.Repeat("p", 600) + `","offset":"o"}`, "", "o"},
		{`2["pid","p"]`, "", ""},
	} {
		p, err := Parse([]byte(c.packet))
		if err != nil {
			t.Fatal(err)
		}
		if pid, offset := p.Credentials(); pid != c.pid || offset != c.offset {
			t.Errorf("%.60s: %q, %q", c.packet, pid, offset)
		}
	}
}

// TestAssembly: attachments are bounded by their sum, and the packet does not refer to the bytes that it was parsed from.
func TestAssembly(t *testing.T) {
	data := []byte(`52-/chat,7["a",{"_placeholder":true,"num":1},{"_placeholder":true,"num":0}]`)
	p, _ := Parse(data)
	limit := len(p.Payload) + 5
	a, closing := NewAssembly(p, limit)
	if closing != nil {
		t.Fatal(closing)
	}
	for i := range data {
		data[i] = '!'
	}
	if complete, err := a.Add([]byte("12")); complete || err != nil {
		t.Fatal(complete, err)
	}
	if complete, err := a.Add([]byte("345")); !complete || err != nil {
		t.Fatal(complete, err)
	}
	if _, err := a.Add(nil); err != Unexpected {
		t.Errorf("one too many: %v", err)
	}
	c, err := a.Packet.Content(a.Attachments)
	if got := AppendPlain(nil, c.Args, c.Attachments); err != nil || string(got) != `["MzQ1","MTI="]` || string(a.Packet.ID) != "7" {
		t.Errorf("%s, %s, %v", got, a.Packet.ID, err)
	}
	a, _ = NewAssembly(p, limit)
	if _, err := a.Add([]byte("123456")); err != ErrTooLarge {
		t.Errorf("too large: %v", err)
	}
	if _, err := NewAssembly(p, len(p.Payload)-1); err != ErrTooLarge {
		t.Errorf("text too large: %v", err)
	}
}

// TestAnswers: what a server sends besides events, byte for byte. The official tests compare most of it.
func TestAnswers(t *testing.T) {
	h := Handshake{SID: "lv_VI97HAXpY6yYWAAAC", Upgrade: true, PingInterval: 25 * time.Second, PingTimeout: 20 * time.Second, MaxPayload: 1e6}
	ws := h
	ws.Upgrade = false
	id := []byte("456")
	for _, c := range []struct{ got, want string }{
		{string(h.Append(nil)), `0{"sid":"lv_VI97HAXpY6yYWAAAC","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}`},
		{string(ws.Append(nil)), `0{"sid":"lv_VI97HAXpY6yYWAAAC","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}`},
		{string(AppendConnected(nil, "/", "s", "")), `40{"sid":"s"}`},
		{string(AppendConnected(nil, "/chat", "s", "p")), `40/chat,{"sid":"s","pid":"p"}`},
		{string(AppendConnectError(nil, "/random", InvalidNamespace, "")), `44/random,{"message":"Invalid namespace"}`},
		{string(AppendConnectError(nil, "/", `no "entry"`, "forbidden")), `44{"message":"no \"entry\"","data":{"code":"forbidden"}}`},
		{string(AppendDisconnect(nil, "/")), `41`},
		{string(AppendDisconnect(nil, "/chat")), `41/chat,`},
		{string(AppendAck(nil, "/", id, "3FGG6ALG-43")), `43456[{"id":"3FGG6ALG-43"}]`},
		{string(AppendAck(nil, "/chat", id, "3FGG6ALG-43")), `43/chat,456[{"id":"3FGG6ALG-43"}]`},
		{string(AppendAckError(nil, "/chat", id, "rate", "too many")), `43/chat,456[{"error":{"code":"rate","message":"too many"}}]`},
		{string(UnknownTransport.Body()), `{"code":0,"message":"Transport unknown"}`},
		{string(UnknownSession.Body()), `{"code":1,"message":"Session ID unknown"}`},
		{string(BadHandshakeMethod.Body()), `{"code":2,"message":"Bad handshake method"}`},
		{string(BadRequest.Body()), `{"code":3,"message":"Bad request"}`},
		{string(Forbidden.Body()), `{"code":4,"message":"Forbidden"}`},
		{string(UnsupportedVersion.Body()), `{"code":5,"message":"Unsupported protocol version"}`},
	} {
		if c.got != c.want {
			t.Errorf("%s, want %s", c.got, c.want)
		}
	}
	if !ForGood(hub.ReasonPolicy) || ForGood(hub.ReasonRestart) || ForGood(hub.ReasonSlow) || ForGood(hub.ReasonProtocol) {
		t.Error("only a client that was closed by policy stays away")
	}
	if ForGood(hub.ReasonExpired) || !StaysAway(hub.ReasonExpired) || !StaysAway(hub.ReasonPolicy) || StaysAway(hub.ReasonRestart) {
		t.Error("a client whose access has expired stays away until its page connects, and goes on with its session")
	}
}

// TestNamespace: no comma is in a namespace, so that its rooms are not those of another.
func TestNamespace(t *testing.T) {
	for _, c := range []struct{ channel, namespace string }{
		{"default", "/"}, {"room:7", "/"}, {"a/b,c", "/"}, {"", "/"}, {"/chat", "/chat"}, {"/chat,room", "/chat"}, {"/chat,/a,b", "/chat"}, {"/", "/"},
	} {
		if got := Namespace(c.channel); got != c.namespace {
			t.Errorf("%q is of %q, want %q", c.channel, got, c.namespace)
		}
	}
	for _, c := range []struct {
		namespace, room, channel string
		ok                       bool
	}{
		{"/", "room:7", "room:7", true}, {"", "5", "5", true}, {"/chat", "room:7", "/chat,room:7", true}, {"/chat", "/a,b", "/chat,/a,b", true},
		{"/", "/chat", "/chat", false}, {"/", "/chat,room:7", "/chat,room:7", false}, {"/", "", "", false}, {"/chat", "", "/chat,", false},
	} {
		channel, ok := Room(c.namespace, c.room)
		if ok != c.ok || ok && channel != c.channel || ok && Namespace(channel) != cmp.Or(c.namespace, MainNamespace) {
			t.Errorf("%q of %q: %q, %v", c.room, c.namespace, channel, ok)
		}
	}
}
